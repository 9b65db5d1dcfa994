//! Placeholder.
pub enum Why {
    Returned,
    LeftBehind,
    Foreign,
}
