//! How parts of a page share the lines of a terminal that is too short for all of them.
//!
//! Promise: never more lines than there are; what is left out of a part is counted in its last line.

/// A part of a page: a title and lines.
#[derive(Debug, Clone)]
pub struct Section {
    pub title: String,
    pub lines: Vec<String>,
    /// Lines that stay when others have to go; 0: it may vanish whole.
    pub least: usize,
}

impl Section {
    /// Lines on the terminal, when so many of its own may be shown.
    fn height(&self, shown: usize) -> usize {
        let titled = usize::from(!self.title.is_empty());
        match shown.min(self.lines.len()) {
            0 => 0,
            some => some + titled,
        }
    }

    /// One line less of its own. A count of what is not there is worth no line where it may vanish.
    fn less(&self, shown: usize) -> usize {
        match shown - 1 {
            1 if self.least == 0 => 0,
            less => less,
        }
    }

    fn show(&self, shown: usize) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        if self.height(shown) == 0 {
            return lines;
        }
        if !self.title.is_empty() {
            lines.push(self.title.clone());
        }
        if shown >= self.lines.len() {
            lines.extend(self.lines.iter().cloned());
            return lines;
        }
        let kept = shown.saturating_sub(1);
        lines.extend(self.lines[..kept].iter().cloned());
        lines.push(format!("  ... {} more", self.lines.len() - kept));
        lines
    }
}

/// The lines of all, when so many of each are shown.
fn height(sections: &[Section], shown: &[usize], gaps: bool) -> usize {
    let each = sections.iter().zip(shown);
    let heights = each.map(|(section, shown)| section.height(*shown));
    let heights: Vec<usize> = heights.filter(|height| *height > 0).collect();
    let between = match gaps {
        true => heights.len().saturating_sub(1),
        false => 0,
    };
    heights.iter().sum::<usize>() + between
}

/// The sections in their order, those behind giving way first; with blank lines between where there is room for that.
pub fn fit(sections: &[Section], rows: usize) -> Vec<String> {
    let mut shown: Vec<usize> = sections.iter().map(|section| section.lines.len()).collect();
    let mut gaps = true;
    // Down to what each needs, with blank lines between; then without those; then whatever it takes.
    for pass in 0..3 {
        gaps = pass == 0;
        for at in (0..sections.len()).rev() {
            let least = if pass < 2 { sections[at].least } else { 0 };
            while shown[at] > least && height(sections, &shown, gaps) > rows {
                shown[at] = sections[at].less(shown[at]);
            }
        }
        if height(sections, &shown, gaps) <= rows {
            break;
        }
    }
    let mut lines: Vec<String> = Vec::new();
    for (section, shown) in sections.iter().zip(shown) {
        let part = section.show(shown);
        if gaps && !lines.is_empty() && !part.is_empty() {
            lines.push(String::new());
        }
        lines.extend(part);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(title: &str, lines: &[&str], least: usize) -> Section {
        Section {
            title: title.into(),
            lines: lines.iter().map(|&line| line.into()).collect(),
            least,
        }
    }

    fn check(rows: usize, expected: &str) {
        let sections = [
            section("", &["web", "mail"], 2),
            section("warnings", &["w1", "w2", "w3"], 2),
            section("peers", &[], 0),
            section("events", &["e1", "e2", "e3"], 0),
        ];
        let lines = fit(&sections, rows);
        assert!(lines.len() <= rows, "{lines:?}");
        assert_eq!(lines.join("|"), expected, "{rows} rows");
    }

    #[test]
    fn those_behind_give_way_first() {
        check(40, "web|mail||warnings|w1|w2|w3||events|e1|e2|e3");
        check(11, "web|mail||warnings|w1|w2|w3||events|e1|  ... 2 more");
        check(10, "web|mail||warnings|w1|w2|w3");
        check(6, "web|mail||warnings|w1|  ... 2 more");
        check(5, "web|mail|warnings|w1|  ... 2 more");
        check(4, "web|mail|warnings|  ... 3 more");
        check(2, "web|mail");
        check(1, "  ... 2 more");
        check(0, "");
    }
}
