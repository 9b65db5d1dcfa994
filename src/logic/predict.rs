//! How long nobody would be served in a hand-over, from what was measured before.
//!
//! Promise: pure; what was never measured is named and not guessed. Nothing is decided by it.

use serde::{Deserialize, Serialize};

/// What was measured, in seconds, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// The role has services or addresses, which take time to go and to come.
    pub serves: bool,
    /// Everything stopped here.
    pub stop: Vec<f64>,
    /// The last point was taken here.
    pub last: Vec<f64>,
    /// It was sent to that peer, when all but a little was there already.
    pub deliver: Vec<f64>,
    /// Transfers of cycles to that peer.
    pub transfers: Vec<f64>,
    /// The peer said how long it takes to come up there.
    pub rise_there: Option<f64>,
    /// Coming up here.
    pub rise_here: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    pub seconds: f64,
    /// What comes on top, because it was never measured. Each reads after "and as long as".
    pub unmeasured: Vec<String>,
}

impl Prediction {
    /// `nobody is served for about 3 s`.
    pub fn sentence(&self) -> String {
        let mut text = format!("nobody is served for about {}", self.span());
        for part in &self.unmeasured {
            text += &format!(", and as long as {part}, which was never measured");
        }
        text
    }

    /// `3 s`.
    pub fn span(&self) -> String {
        match self.seconds {
            seconds if seconds < 1.0 => "1 s".to_owned(),
            seconds => format!("{} s", seconds.ceil()),
        }
    }
}

/// None where nothing was measured.
pub fn predict(measured: &Measured) -> Option<Prediction> {
    let mut unmeasured = Vec::new();
    let mut part = |value: Option<f64>, name: &str| {
        if value.is_none() {
            unmeasured.push(name.to_owned());
        }
        value
    };
    let stop = match measured.serves {
        true => part(median(&measured.stop), "the services take to stop"),
        false => median(&measured.stop),
    };
    let deliver = median(&measured.deliver).or_else(|| median(&measured.transfers));
    let deliver = part(deliver, "the last point takes to be sent");
    let rise = measured.rise_there.or(measured.rise_here);
    let rise = match measured.serves {
        true => part(rise, "the services take to start there"),
        false => rise,
    };
    let parts = [stop, median(&measured.last), deliver, rise];
    parts.iter().any(Option::is_some).then(|| Prediction {
        seconds: parts.iter().flatten().sum(),
        unmeasured,
    })
}

/// One slow time among others does not count.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(measured: Measured, expected: &str) {
        let said = predict(&measured).map(|predicted| predicted.sentence());
        assert_eq!(said.unwrap_or_default(), expected);
    }

    #[test]
    fn what_is_known_is_said() {
        check(Measured::default(), "");
        let all = Measured {
            serves: true,
            stop: vec![1.0, 9.0, 1.5],
            last: vec![0.2],
            deliver: vec![0.3],
            transfers: vec![600.0],
            rise_there: Some(2.0),
            rise_here: Some(100.0),
        };
        check(all.clone(), "nobody is served for about 4 s");
        let there = Measured {
            rise_there: None,
            ..all.clone()
        };
        check(there, "nobody is served for about 102 s");
        let transfers = Measured {
            deliver: vec![],
            serves: false,
            stop: vec![],
            rise_there: None,
            rise_here: None,
            ..all.clone()
        };
        check(transfers, "nobody is served for about 601 s");
        let never = Measured {
            stop: vec![],
            rise_there: None,
            rise_here: None,
            ..all
        };
        check(
            never,
            "nobody is served for about 1 s, and as long as the services take to stop, which was never measured, and as long \
             as the services take to start there, which was never measured",
        );
    }
}
