//! Names of nodes, roles and datasets.
//!
//! Promise: whoever holds one of these holds a word that is safe as a file name, as a program argument and in a message:
//! 1 to 48 characters of `a-z A-Z 0-9 . _ -`, starting with a letter or digit. Names are for people; identity is an id.

use std::fmt;

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 48;

/// Why a word is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{word:?} is not a valid {kind} name: use 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' or '-', starting with a letter or digit"
)]
pub struct BadName {
    pub kind: &'static str,
    pub word: String,
}

fn valid(word: &str) -> bool {
    word.len() <= NAME_BYTES_MAX
        && word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            pub fn parse(word: &str) -> Result<$type, BadName> {
                if valid(word) { Ok($type(word.to_owned())) } else { Err(BadName { kind: $kind, word: word.to_owned() }) }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(word: String) -> Result<$type, BadName> {
                $type::parse(&word)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl std::str::FromStr for $type {
            type Err = BadName;
            fn from_str(word: &str) -> Result<$type, BadName> {
                $type::parse(word)
            }
        }

        impl AsRef<std::path::Path> for $type {
            fn as_ref(&self) -> &std::path::Path {
                self.0.as_ref()
            }
        }
    };
}

name!(
    /// One machine running standin. A peer is named by its node name.
    NodeName,
    "node"
);
name!(
    /// The unit that fails over.
    RoleName,
    "role"
);
name!(
    /// One btrfs subvolume or ZFS filesystem of a role.
    DatasetName,
    "dataset"
);

/// The longest name of a ZFS filesystem that leaves room for what is made beside it and for snapshots (ZFS: 255 bytes in all).
const ZFS_NAME_BYTES_MAX: usize = 150;

/// Whether a word names a ZFS filesystem below a pool: letters, digits, `_ - . :` and `/`, no part of it empty or ours.
pub fn is_zfs_filesystem(word: &str) -> bool {
    let part = |part: &str| {
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
        !part.is_empty() && part.chars().all(letters) && !matches!(part, "." | ".." | ".standin")
    };
    word.contains('/')
        && word.len() <= ZFS_NAME_BYTES_MAX
        && word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.split('/').all(part)
}

/// The word most like `word`, if any is much like it.
pub fn nearest<'w>(word: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    words
        .map(|known| {
            (
                strsim::damerau_levenshtein(&word.to_lowercase(), known),
                known,
            )
        })
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, ok: bool) {
        assert_eq!(DatasetName::parse(word).is_ok(), ok, "{word:?}");
    }

    #[test]
    fn zfs_filesystems() {
        for word in ["tank/www", "tank/srv/www-2.x", "t_1/a:b"] {
            assert!(is_zfs_filesystem(word), "{word}");
        }
        for word in [
            "tank",
            "/tank/www",
            "tank/",
            "tank//www",
            "-F/x",
            "tank/a@b",
            "tank/a b",
            "tank/.standin/x",
            "tank/..",
            &format!("tank/{}", "x".repeat(150)),
        ] {
            assert!(!is_zfs_filesystem(word), "{word}");
        }
    }

    #[test]
    fn words_that_are_names() {
        for word in ["a", "web", "db-1", "www.example.org", "A_b", "0"] {
            check(word, true);
        }
    }

    #[test]
    fn words_that_are_not() {
        for word in [
            "",
            ".",
            "..",
            "-x",
            ".x",
            "_x",
            "a/b",
            "a b",
            "ä",
            "a\0",
            "a\n",
            &"x".repeat(49),
        ] {
            check(word, false);
        }
    }
}
