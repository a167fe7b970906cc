//! One check of a machine: its outcome, what is lost by it and what to do.
//! Input: made by the checks; read by `page`.

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing is lost.
    Ok,
    /// Something is lost.
    Missing,
    /// Nothing required is missing, but it is worth knowing.
    Note,
    /// It could not be checked.
    Unknown,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The subject of the check.
    pub name: &'static str,
    /// Its outcome.
    pub status: Status,
    /// The reading, in words.
    pub found: String,
    /// The loss, if there is one.
    pub loses: Option<String>,
    /// The remedy, if there is one.
    pub remedy: Option<String>,
}

impl Finding {
    pub(super) fn new(name: &'static str, status: Status, found: impl Into<String>) -> Self {
        Self {
            name,
            status,
            found: found.into(),
            loses: None,
            remedy: None,
        }
    }

    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, found)
    }

    pub(super) fn note(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Status::Note, found)
    }

    pub(super) fn missing(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Status::Missing, found)
    }

    pub(super) fn unknown(name: &'static str, why: &str) -> Self {
        Self::new(name, Status::Unknown, format!("not checked: {why}"))
    }

    pub(super) fn loses(mut self, what: impl Into<String>) -> Self {
        self.loses = Some(what.into());
        self
    }

    pub(super) fn remedy(mut self, what: impl Into<String>) -> Self {
        self.remedy = Some(what.into());
        self
    }
}
