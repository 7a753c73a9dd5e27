//! Between columns and the model's types, with the row named where they do
//! not fit. A value is never part of the error: it may be a secret.

use serde::Serialize;
use serde::de::DeserializeOwned;
use vimana_model::Timestamp;
use vimana_model::unit::{MiB, Resources};

use crate::{Result, StoreError};

/// The row that is being read or written.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    pub table: &'static str,
    /// Told only where it is an id or a number, and so no secret.
    pub key: &'a str,
}

/// Whether a text looks like an id of some kind.
pub fn is_id(text: &str) -> bool {
    text.split_once('_').is_some_and(|(prefix, digits)| {
        prefix.bytes().all(|byte| byte.is_ascii_lowercase())
            && digits.len() == 32
            && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

impl Row<'_> {
    pub fn corrupt(self, column: &str) -> StoreError {
        let Self { table, key } = self;
        let whose = if is_id(key) || is_number(key) {
            format!(" of `{key}`")
        } else {
            String::new()
        };
        StoreError::Corrupt {
            what: format!("column `{column}`{whose} in {table}"),
        }
    }

    /// An id, a name, a key: what a type makes of its own text.
    pub fn parse<T: TryFrom<String>>(self, column: &str, text: String) -> Result<T> {
        T::try_from(text).map_err(|_| self.corrupt(column))
    }

    pub fn parse_option<T: TryFrom<String>>(
        self,
        column: &str,
        text: Option<String>,
    ) -> Result<Option<T>> {
        text.map(|text| self.parse(column, text)).transpose()
    }

    /// One of an enum's values, by its name on the wire.
    pub fn slug<T: DeserializeOwned>(self, column: &str, text: String) -> Result<T> {
        serde_json::from_value(serde_json::Value::String(text)).map_err(|_| self.corrupt(column))
    }

    pub fn to_slug(self, column: &str, value: &impl Serialize) -> Result<String> {
        match serde_json::to_value(value) {
            Ok(serde_json::Value::String(text)) => Ok(text),
            Ok(_) | Err(_) => Err(self.corrupt(column)),
        }
    }

    pub fn json<T: DeserializeOwned>(self, column: &str, text: &str) -> Result<T> {
        serde_json::from_str(text).map_err(|_| self.corrupt(column))
    }

    pub fn json_option<T: DeserializeOwned>(
        self,
        column: &str,
        text: Option<String>,
    ) -> Result<Option<T>> {
        text.map(|text| self.json(column, &text)).transpose()
    }

    pub fn to_json_option(
        self,
        column: &str,
        value: Option<&impl Serialize>,
    ) -> Result<Option<String>> {
        value.map(|value| self.to_json(column, value)).transpose()
    }

    pub fn to_json(self, column: &str, value: &impl Serialize) -> Result<String> {
        serde_json::to_string(value).map_err(|_| self.corrupt(column))
    }

    /// An amount that is never negative.
    pub fn amount<T: TryFrom<i64>>(self, column: &str, value: i64) -> Result<T> {
        T::try_from(value).map_err(|_| self.corrupt(column))
    }

    pub fn to_amount(self, column: &str, value: impl TryInto<i64>) -> Result<i64> {
        value.try_into().map_err(|_| self.corrupt(column))
    }

    pub fn resources(self, [vcpus, memory_mib, disk_mib]: [i64; 3]) -> Result<Resources> {
        Ok(Resources {
            vcpus: self.amount("vcpus", vcpus)?,
            memory_mib: MiB(self.amount("memory_mib", memory_mib)?),
            disk_mib: MiB(self.amount("disk_mib", disk_mib)?),
        })
    }

    pub fn to_resources(self, resources: Resources) -> Result<[i64; 3]> {
        let Resources {
            vcpus,
            memory_mib,
            disk_mib,
        } = resources;
        Ok([
            i64::from(vcpus),
            self.to_amount("memory_mib", memory_mib.0)?,
            self.to_amount("disk_mib", disk_mib.0)?,
        ])
    }
}

pub fn time(ms: Option<i64>) -> Option<Timestamp> {
    ms.map(Timestamp::from_ms)
}

pub fn to_time(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::as_ms)
}
