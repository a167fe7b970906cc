//! One check of a machine: how it came out, what is lost by it and what to do.
//! Made by the checks; read by `page`.

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Ok,
    /// Something is lost.
    Missing,
    /// Worth knowing.
    Note,
    /// Could not be checked.
    Unknown,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked.
    pub name: &'static str,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What is lost by it.
    pub loses: Option<String>,
    /// What the reader can do.
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
