//! `standin restore` without arguments, on a terminal: asks what to bring back, from when, and where to.
//!
//! Promise: it decides nothing and does nothing: in the end it prints the command that means the same, and that command shows
//! what will happen and asks, as always. Plain lines, so that it works over the slowest line. An empty answer or the end of the
//! input ends it.

use std::path::PathBuf;

use anyhow::Result;

use super::super::client::Control;
use super::super::output::{self, Output};
use super::super::render::quoted;
use super::super::table::Table;
use super::super::{find, human};
use super::usage;
use crate::cli::{Global, Restore, Which};
use crate::daemon::api::{Came, CameRequest, PointView, Points, Request, RolePoints};
use crate::error::Code;
use crate::logic::fork::Figures;
use crate::logic::name::{DatasetName, RoleName};
use crate::logic::units;

/// Points on a page.
const PAGE: usize = 10;

pub fn run(global: &Global, args: &Restore) -> Result<Code> {
    let output = Output::of(global);
    if output.is_json() || !output::can_ask() {
        return Err(usage(
            "understand the command line: what is to be restored is missing: <ROLE|PATH>",
            "on a terminal, without --json, standin restore asks for it; standin restore --help shows examples",
        ));
    }
    let asking = Asking {
        control: Control::of(global),
        output,
    };
    match asking.all(args)? {
        Some(chosen) => {
            output.text(&format!("\nthe same as: {}\n", spelled(&chosen)))?;
            super::run(global, &chosen)
        }
        None => {
            output.text("nothing was changed")?;
            Ok(Code::Interrupted)
        }
    }
}

/// The command line that means the same.
fn spelled(args: &Restore) -> String {
    let mut words = vec!["standin restore".to_owned()];
    let path = |path: &PathBuf| quoted(&path.display().to_string());
    words.extend(args.what.as_ref().map(path));
    let mut option = |name: &str, value: Option<String>| {
        words.extend(value.map(|value| format!("--{name} {value}")));
    };
    option("point", args.which.point.clone());
    option("dataset", args.dataset.as_ref().map(ToString::to_string));
    option("path", args.path.as_ref().map(path));
    option("to", args.to.as_ref().map(path));
    if args.beside {
        words.push("--beside".to_owned());
    }
    if args.dry_run {
        words.push("--dry-run".to_owned());
    }
    words.join(" ")
}

/// A dataset and a path in it; none: all.
type Part = (Option<DatasetName>, Option<PathBuf>);

struct Asking {
    control: Control,
    output: Output,
}

impl Asking {
    /// None: the person wants nothing after all.
    fn all(&self, args: &Restore) -> Result<Option<Restore>> {
        let (_, points): (_, Points) = self.control.ask(&Request::Points { role: None })?;
        let Some(role) = self.role(&points)? else {
            return Ok(None);
        };
        let Some(point) = self.point(role)? else {
            return Ok(None);
        };
        let Some((dataset, path)) = self.part(point)? else {
            return Ok(None);
        };
        let is_active = role.state.as_deref() == Some("active");
        let Some(to) = self.place(is_active, path.is_some())? else {
            return Ok(None);
        };
        Ok(Some(Restore {
            what: Some(PathBuf::from(role.role.as_str())),
            which: Which {
                point: Some(point.short.clone()),
                ..Which::default()
            },
            dataset,
            path,
            to,
            beside: false,
            dry_run: args.dry_run,
            yes: args.yes,
        }))
    }

    fn role<'a>(&self, points: &'a Points) -> Result<Option<&'a RolePoints>> {
        let roles: Vec<&RolePoints> = points
            .roles
            .iter()
            .filter(|r| !r.points.is_empty())
            .collect();
        match roles.as_slice() {
            [] => {
                self.output.text("no role has points on this node")?;
                return Ok(None);
            }
            [one] => {
                self.output.text(&format!("role {}", one.role))?;
                return Ok(Some(one));
            }
            _ => {}
        }
        let mut table = Table::bare().right([0]);
        for (at, role) in roles.iter().enumerate() {
            let state = role.state.clone().unwrap_or_default();
            let count = human::count(role.points.len(), "point");
            table.row([(at + 1).to_string(), role.role.to_string(), state, count]);
        }
        self.output.text(&table.lines("  ").join("\n"))?;
        let named = |word: &str| {
            let by_name = RoleName::parse(word).ok();
            let by_name = by_name.and_then(|name| roles.iter().position(|r| r.role == name));
            numbered(word, roles.len()).or(by_name)
        };
        let chosen = self.choose("Which role? (number)", named)?;
        Ok(chosen.map(|at| roles[at]))
    }

    /// A point of a page, or as of a time.
    fn point<'a>(&self, role: &'a RolePoints) -> Result<Option<&'a PointView>> {
        let newest: Vec<&PointView> = role.points.iter().rev().collect();
        let mut from = 0;
        loop {
            let page = &newest[from..newest.len().min(from + PAGE)];
            self.page(role, page, from)?;
            let more = from + PAGE < newest.len();
            let hint = if more { ", m for more" } else { "" };
            let question =
                format!("Which point? (number{hint}, or a time: yesterday, '3 hours ago')");
            let Some(word) = self.ask(&question)? else {
                return Ok(None);
            };
            if word == "m" && more {
                from += PAGE;
                continue;
            }
            if let Some(at) = numbered(&word, newest.len()) {
                return Ok(Some(newest[at]));
            }
            if let Some(point) = newest.iter().find(|point| point.short == word) {
                return Ok(Some(point));
            }
            match find::before(&word) {
                Ok(time) => match newest.iter().find(|point| point.taken <= time) {
                    Some(point) => {
                        let taken = human::local_zoned(point.taken);
                        self.output
                            .text(&format!("that is {}, taken {taken}", point.short))?;
                        return Ok(Some(point));
                    }
                    None => self.output.text("no point is that old")?,
                },
                Err(_) => self
                    .output
                    .text("that is neither a number of the list nor a time")?,
            }
        }
    }

    fn page(&self, role: &RolePoints, page: &[&PointView], from: usize) -> Result<()> {
        let request = CameRequest {
            role: role.role.clone(),
            points: page.iter().map(|point| point.name).collect(),
        };
        // The list is of use without it.
        let came = self.control.ask::<Came>(&Request::Came(request));
        let came = came.map(|(_, came)| came.points).unwrap_or_default();
        let mut table =
            Table::new(["", "POINT", "TAKEN", "WHY", "CHANGED SINCE THE ONE BEFORE"]).right([0]);
        for (at, point) in page.iter().enumerate() {
            table.row([
                (from + at + 1).to_string(),
                point.short.clone(),
                human::local(point.taken),
                point.reason.clone(),
                came.get(&point.short).map_or("-".into(), figures),
            ]);
        }
        self.output.text(&table.lines("  ").join("\n"))
    }

    /// The whole role, a dataset, or a path.
    fn part(&self, point: &PointView) -> Result<Option<Part>> {
        let datasets: Vec<&DatasetName> = point.datasets.keys().collect();
        let mut lines = vec!["  1  all of it".to_owned()];
        for (at, dataset) in datasets.iter().enumerate() {
            lines.push(format!("  {}  dataset {dataset}", at + 2));
        }
        self.output.text(&lines.join("\n"))?;
        loop {
            let question = "What of it? (number, or a path as it is or was live)";
            let Some(word) = self.ask(question)? else {
                return Ok(None);
            };
            match numbered(&word, datasets.len() + 1) {
                Some(0) => return Ok(Some((None, None))),
                Some(at) => return Ok(Some((Some(datasets[at - 1].clone()), None))),
                None if word.starts_with('/') || datasets.len() == 1 => {
                    return Ok(Some((None, Some(PathBuf::from(word)))));
                }
                None => self.output.text("write the whole path, from / on")?,
            }
        }
    }

    fn place(&self, is_active: bool, is_path: bool) -> Result<Option<Option<PathBuf>>> {
        let name = if is_path {
            "directory or new name"
        } else {
            "directory"
        };
        let question = match is_active {
            true => {
                format!("Where to? (l: over what is live, which is kept as a point; or a {name})")
            }
            false => {
                format!("Where to? (a {name}: this node stands in, what is live is elsewhere)")
            }
        };
        loop {
            let Some(word) = self.ask(&question)? else {
                return Ok(None);
            };
            match word.as_str() {
                "l" if is_active => return Ok(Some(None)),
                word if word.contains('/') => return Ok(Some(Some(word.into()))),
                _ => self.output.text("write the directory with a / in it")?,
            }
        }
    }

    fn choose(
        &self,
        question: &str,
        meant: impl Fn(&str) -> Option<usize>,
    ) -> Result<Option<usize>> {
        loop {
            let Some(word) = self.ask(question)? else {
                return Ok(None);
            };
            match meant(&word) {
                Some(at) => return Ok(Some(at)),
                None => self.output.text("that is not in the list")?,
            }
        }
    }

    /// None: nothing was answered.
    fn ask(&self, question: &str) -> Result<Option<String>> {
        let answer = output::ask(&format!("{question}: "))?;
        Ok(answer.filter(|word| !word.is_empty()))
    }
}

/// A number of a list from 1 on, as an index.
fn numbered(word: &str, most: usize) -> Option<usize> {
    let number: usize = word.parse().ok()?;
    (1..=most).contains(&number).then(|| number - 1)
}

/// `3 files, 1.2 MiB`.
fn figures(figures: &Figures) -> String {
    match (figures.files, figures.directories) {
        (0, 0) => "nothing".to_owned(),
        (0, count) => {
            human::count(count as usize, "directory").replace("directorys", "directories")
        }
        (count, _) if figures.bytes == 0 => human::count(count as usize, "file"),
        (count, _) => format!(
            "{}, {}",
            human::count(count as usize, "file"),
            units::human_bytes(figures.bytes)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_means_the_same() {
        let args = Restore {
            what: Some("web".into()),
            which: Which {
                point: Some("1.42".into()),
                ..Which::default()
            },
            dataset: DatasetName::parse("files").ok(),
            path: Some("my file".into()),
            to: Some("/srv/old".into()),
            beside: false,
            dry_run: true,
            yes: false,
        };
        let expected = "standin restore web --point 1.42 --dataset files --path 'my file' --to /srv/old --dry-run";
        assert_eq!(spelled(&args), expected);
    }

    #[test]
    fn numbers_of_a_list() {
        let check = |word: &str, expected| assert_eq!(numbered(word, 3), expected, "{word:?}");
        check("1", Some(0));
        check("3", Some(2));
        for word in ["0", "4", "-1", "x", ""] {
            check(word, None);
        }
    }
}
