//! Templates in the manner of Jinja, with minijinja.
//!
//! Promise: an unknown name is an error; nothing outside of the template is read (there is no loader, so `include`, `import`
//! and `extends` find nothing); a loop ends when the fuel is spent. What fuel does not bound, one instruction that asks for
//! much memory, the caller's process does.

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};

use super::{Fault, TEXT_BYTES_MAX, Values};

/// Instructions of one rendering: a template of configuration takes thousands.
const FUEL: u64 = 1_000_000;

/// Nested calls of macros and blocks.
const DEPTH_MAX: usize = 64;

/// The text that the template gives.
pub fn jinja(name: &str, template: &str, values: &Values) -> Result<String, Fault> {
    let mut engine = Environment::new();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    // It is no HTML.
    engine.set_auto_escape_callback(|_| AutoEscape::None);
    // A line that holds only a tag leaves no empty line.
    let syntax = SyntaxConfig::builder()
        .keep_trailing_newline(true)
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    engine.set_syntax(syntax.map_err(|error| Fault::Wrong(error.to_string()))?);
    engine.set_fuel(Some(FUEL));
    engine.set_recursion_limit(DEPTH_MAX);
    let given = context! {
        hostname => values.hostname.as_str(),
        node => values.node.as_str(),
        role => values.role.as_str(),
        active => values.active.as_str(),
        is_active => values.is_active,
        vars => &values.vars,
    };
    let wrong = |error: minijinja::Error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(why) = cause {
            text = format!("{text}: {why}");
            cause = why.source();
        }
        Fault::Wrong(text)
    };
    let made = engine
        .render_named_str(name, template, given)
        .map_err(wrong)?;
    match made.len() > TEXT_BYTES_MAX {
        true => Err(Fault::TooLong),
        false => Ok(made),
    }
}
