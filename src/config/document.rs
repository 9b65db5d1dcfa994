//! A TOML document read key by key, collecting complaints instead of stopping at the first.
//!
//! Promise: a key that nobody asked for is refused with the nearest one that was; a value of the wrong type is a complaint
//! at its line, never a default. Reading goes on after every complaint, so that one run finds them all.
//!
//! It deliberately does not know which keys there are, nor what they mean.

use std::cell::RefCell;
use std::ops::Range;

use toml_edit::{Document, Item, TableLike, Value};

use super::complaint::Complaint;
use crate::logic::name::nearest;

/// The text and what is wrong with it so far.
pub struct Page<'a> {
    text: &'a str,
    complaints: RefCell<Vec<Complaint>>,
}

impl<'a> Page<'a> {
    pub fn new(text: &'a str) -> Page<'a> {
        Page {
            text,
            complaints: RefCell::new(Vec::new()),
        }
    }

    /// The document as TOML; none, with one complaint, when it is not.
    pub fn parse(&self) -> Option<Document<&'a str>> {
        match Document::parse(self.text) {
            Ok(document) => Some(document),
            Err(error) => {
                let place = error.span().map_or(0, |span| span.start);
                let (line, column) = self.place(place);
                self.complaints.borrow_mut().push(Complaint {
                    line,
                    column: Some(column),
                    key: String::new(),
                    value: None,
                    what: format!("this is not TOML: {}", error.message()),
                });
                None
            }
        }
    }

    /// All complaints, by line.
    pub fn into_complaints(self) -> Vec<Complaint> {
        let mut list = self.complaints.into_inner();
        list.sort_by_key(|complaint| complaint.line);
        list
    }

    /// Line and column of a byte, from 1.
    fn place(&self, byte: usize) -> (usize, usize) {
        let before = &self.text.as_bytes()[..byte.min(self.text.len())];
        let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
        let start = before
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |at| at + 1);
        (line, before.len() - start + 1)
    }

    fn source(&self, span: Option<Range<usize>>) -> Option<String> {
        self.text.get(span?).map(str::to_owned)
    }
}

/// A table of the document and the keys asked for so far.
pub struct Section<'a> {
    page: &'a Page<'a>,
    table: &'a dyn TableLike,
    /// The path of keys to here; empty at the top.
    key: String,
    line: usize,
    known: Vec<&'static str>,
    /// Needed keys that are not there, and what to write; told by `finish`.
    missing: Vec<(&'static str, String)>,
}

/// A key that is there, with its value.
#[derive(Clone)]
pub struct Found<'a> {
    page: &'a Page<'a>,
    item: &'a Item,
    /// The whole path of the key.
    pub key: String,
    /// The last word of it.
    pub name: &'a str,
    pub line: usize,
}

impl<'a> Section<'a> {
    pub fn top(page: &'a Page<'a>, document: &'a Document<&'a str>) -> Section<'a> {
        Section {
            page,
            table: document.as_table(),
            key: String::new(),
            line: 1,
            known: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// The value under a key, if it is there. The key is a known one from now on.
    pub fn get(&mut self, name: &'static str) -> Option<Found<'a>> {
        self.known.push(name);
        let (key, item) = self.table.get_key_value(name)?;
        Some(self.found(key.get(), key.span(), item))
    }

    /// As `get`; a missing key is a complaint that says what belongs there.
    pub fn need(&mut self, name: &'static str, example: &str) -> Option<Found<'a>> {
        let found = self.get(name);
        if found.is_none() {
            let what = format!("missing: write {name} = {example}");
            self.missing.push((name, what));
        }
        found
    }

    /// The sub-section under a key, if it is there.
    pub fn section(&mut self, name: &'static str) -> Option<Section<'a>> {
        self.get(name)?.section()
    }

    /// Every entry, whatever its key: for tables whose keys are names.
    pub fn entries(&self) -> Vec<Found<'a>> {
        self.table
            .iter()
            .filter_map(|(name, _)| self.table.get_key_value(name))
            .map(|(key, item)| self.found(key.get(), key.span(), item))
            .collect()
    }

    /// Complains of a key in this section that is missing or cannot be blamed on one value.
    pub fn complain(&self, name: &str, what: impl Into<String>) {
        self.page.complaints.borrow_mut().push(Complaint {
            line: self.line,
            column: None,
            key: self.path(name),
            value: None,
            what: what.into(),
        });
    }

    /// Refuses every key that was not asked for, and says how many there were; complains of needed keys that are missing,
    /// but not where a misspelt one stands for it: that is one mistake.
    pub fn finish(mut self) -> usize {
        let mut refused = 0;
        for found in self.entries() {
            if self.known.contains(&found.name) {
                continue;
            }
            refused += 1;
            found.refuse_key(match nearest(found.name, self.known.iter().copied()) {
                Some(near) => {
                    self.missing.retain(|(name, _)| *name != near);
                    format!("unknown key: did you mean \"{near}\"?")
                }
                None => format!("unknown key: the keys here are {}", self.known.join(", ")),
            });
        }
        for (name, what) in std::mem::take(&mut self.missing) {
            self.complain(name, what);
        }
        refused
    }

    fn found(&self, name: &'a str, span: Option<Range<usize>>, item: &'a Item) -> Found<'a> {
        let start = span.or_else(|| item.span()).map(|span| span.start);
        Found {
            page: self.page,
            item,
            key: self.path(name),
            name,
            line: start.map_or(self.line, |start| self.page.place(start).0),
        }
    }

    fn path(&self, name: &str) -> String {
        match (self.key.as_str(), name) {
            ("", name) => name.to_owned(),
            (key, "") => key.to_owned(),
            (key, name) => format!("{key}.{name}"),
        }
    }
}

impl<'a> Found<'a> {
    pub fn section(self) -> Option<Section<'a>> {
        let Some(table) = self.item.as_table_like() else {
            self.wrong_type("a table");
            return None;
        };
        Some(Section {
            page: self.page,
            table,
            key: self.key,
            line: self.line,
            known: Vec::new(),
            missing: Vec::new(),
        })
    }

    /// The tables of a list: `[[...]]`, or inline ones.
    pub fn tables(&self) -> Option<Vec<Section<'a>>> {
        let section = |table: &'a dyn TableLike, span: Option<Range<usize>>| Section {
            page: self.page,
            table,
            key: self.key.clone(),
            line: span.map_or(self.line, |span| self.page.place(span.start).0),
            known: Vec::new(),
            missing: Vec::new(),
        };
        if let Some(tables) = self.item.as_array_of_tables() {
            let tables = tables.iter().map(|table| section(table, table.span()));
            return Some(tables.collect());
        }
        let tables = self.item.as_array().and_then(|array| {
            let one = |value: &'a Value| {
                let table = value.as_inline_table()?;
                Some(section(table, value.span()))
            };
            array.iter().map(one).collect::<Option<Vec<_>>>()
        });
        if tables.is_none() {
            self.wrong_type("a list of tables");
        }
        tables
    }

    pub fn text(&self) -> Option<&'a str> {
        let text = self.item.as_str();
        if text.is_none() {
            self.wrong_type("text in quotes");
        }
        text
    }

    /// Text with a meaning.
    pub fn parsed<T, E: std::fmt::Display>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(self.text()?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(error.to_string());
                None
            }
        }
    }

    /// A whole number that is not negative.
    pub fn whole(&self) -> Option<u64> {
        let number = self.item.as_integer();
        if number.is_none() {
            self.wrong_type("a whole number");
        }
        let number = number?;
        let whole = u64::try_from(number).ok();
        if whole.is_none() {
            self.refuse("must not be negative");
        }
        whole
    }

    pub fn flag(&self) -> Option<bool> {
        let flag = self.item.as_bool();
        if flag.is_none() {
            self.wrong_type("true or false");
        }
        flag
    }

    /// Whether the value is a bare number, for keys that may be written either way.
    pub fn is_number(&self) -> bool {
        self.item.is_integer()
    }

    /// Whether the value is text, for keys that may also be a list.
    pub fn is_text(&self) -> bool {
        self.item.is_str()
    }

    /// Whether the value is a list, for keys that may also be a table.
    pub fn is_list(&self) -> bool {
        self.item.is_array()
    }

    /// A list of texts, or one text standing for a list of one; each with its own place. Elements of another type are
    /// complained of and left out.
    pub fn texts(&self) -> Option<Vec<Word<'a>>> {
        if let Some(text) = self.item.as_str() {
            return Some(vec![self.word(text, self.item.span(), self.line)]);
        }
        let Some(array) = self.item.as_array() else {
            self.wrong_type("a list of texts");
            return None;
        };
        Some(
            array
                .iter()
                .filter_map(|value| self.element(value))
                .collect(),
        )
    }

    /// A list whose elements are texts or lists of texts, or one text standing for a list of one. Elements of another type
    /// are complained of and left out.
    pub fn elements(&self) -> Option<Vec<Element<'a>>> {
        let Some(array) = self.item.as_array() else {
            let words = self.texts()?;
            return Some(words.into_iter().map(Element::Text).collect());
        };
        let element = |value: &'a Value| match value.as_array() {
            Some(inner) => {
                let words: Vec<_> = inner.iter().filter_map(|word| self.element(word)).collect();
                (words.len() == inner.len()).then_some(Element::List(words))
            }
            None => self.element(value).map(Element::Text),
        };
        Some(array.iter().filter_map(element).collect())
    }

    fn element(&self, value: &'a Value) -> Option<Word<'a>> {
        let line = value
            .span()
            .map_or(self.line, |span| self.page.place(span.start).0);
        let text = value.as_str();
        let word = self.word(text.unwrap_or_default(), value.span(), line);
        if text.is_none() {
            word.refuse(format!("is {}, not text in quotes", type_of(value)));
        }
        text.map(|_| word)
    }

    fn word(&self, text: &'a str, span: Option<Range<usize>>, line: usize) -> Word<'a> {
        Word {
            page: self.page,
            text,
            value: self.page.source(span),
            key: self.key.clone(),
            line,
        }
    }

    /// Complains of the value.
    pub fn refuse(&self, what: impl Into<String>) {
        let value = match self.item {
            Item::Value(value) => self.page.source(value.span()),
            _ => None,
        };
        self.push(value, what.into());
    }

    /// Complains of the key itself.
    pub fn refuse_key(&self, what: impl Into<String>) {
        self.push(None, what.into());
    }

    fn wrong_type(&self, wanted: &str) {
        let is = match self.item {
            Item::Value(value) => type_of(value),
            Item::None | Item::Table(_) => "a table",
            Item::ArrayOfTables(_) => "a list of tables",
        };
        self.refuse(format!("is {is}, not {wanted}"));
    }

    fn push(&self, value: Option<String>, what: String) {
        self.page.complaints.borrow_mut().push(Complaint {
            line: self.line,
            column: None,
            key: self.key.clone(),
            // A value over many lines would bury the sentence.
            value: value.filter(|value| !value.contains('\n')),
            what,
        });
    }
}

/// One element of a list in which lists may stand.
pub enum Element<'a> {
    Text(Word<'a>),
    List(Vec<Word<'a>>),
}

/// One text of a list.
pub struct Word<'a> {
    page: &'a Page<'a>,
    pub text: &'a str,
    value: Option<String>,
    key: String,
    line: usize,
}

impl Word<'_> {
    pub fn parsed<T, E: std::fmt::Display>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(self.text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(error.to_string());
                None
            }
        }
    }

    pub fn refuse(&self, what: impl Into<String>) {
        self.page.complaints.borrow_mut().push(Complaint {
            line: self.line,
            column: None,
            key: self.key.clone(),
            value: self.value.clone(),
            what: what.into(),
        });
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a number",
        Value::Float(_) => "a number with a point",
        Value::Boolean(_) => "a truth value",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::InlineTable(_) => "a table",
    }
}
