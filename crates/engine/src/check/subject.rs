//! What a breach is about, with the names that people know it by.

use std::fmt;

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Vm,
    Host,
    Operation,
    Request,
    Image,
    Volume,
    Backup,
    /// The sequence of all events.
    Events,
    /// Named by the user whose key it was answered to.
    Answer,
    /// Of a table that none of the above is in; named by the table.
    Row,
}

/// An id, and the name of what has it where that is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Named {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Subject {
    pub kind: Kind,
    /// Empty where not even that can be read.
    #[serde(flatten)]
    pub itself: Named,
    /// The VM of an operation, a request or a volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Named>,
    /// Where it is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Named>,
}

impl Kind {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vm => "VM",
            Self::Host => "host",
            Self::Operation => "operation",
            Self::Request => "request",
            Self::Image => "image",
            Self::Volume => "volume",
            Self::Backup => "backup",
            Self::Events => "events",
            Self::Answer => "an answer to a key of",
            Self::Row => "a row of",
        }
    }
}

impl Named {
    pub fn new(id: impl fmt::Display, name: Option<impl fmt::Display>) -> Self {
        Self {
            id: id.to_string(),
            name: name.map(|name| name.to_string()),
        }
    }
}

impl Subject {
    pub const fn new(kind: Kind, itself: Named) -> Self {
        Self {
            kind,
            itself,
            vm: None,
            tenant: None,
            host: None,
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.id.as_str()) {
            (Some(name), "") => f.write_str(name),
            (Some(name), id) => write!(f, "{name} ({id})"),
            (None, id) => f.write_str(id),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            itself,
            vm,
            tenant,
            host,
        } = self;
        write!(f, "{}", kind.name())?;
        if *kind != Kind::Events {
            write!(f, " {itself}")?;
        }
        for (what, named) in [("VM", vm), ("tenant", tenant), ("host", host)] {
            if let Some(named) = named {
                write!(f, ", {what} {named}")?;
            }
        }
        Ok(())
    }
}
