//! One thing that is filled in: what it may be, and whether a value is that.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::FieldError;
use crate::name::InputName;

/// Longest value, in characters.
pub const MAX_INPUT_CHARS: u32 = 16 * 1024;
/// Longest label, longest choice, longest help.
const MAX_LABEL_CHARS: usize = 100;
const MAX_HELP_CHARS: usize = 500;
const MAX_CHOICES: usize = 64;
/// What JSON carries exactly everywhere.
const MAX_NUMBER: i64 = (1 << 53) - 1;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum InputKind {
    #[default]
    Text,
    /// A whole number.
    Number,
    Switch,
    /// One of `choices`.
    Choice,
    /// Shown to nobody once it is given.
    Password,
}

impl InputKind {
    pub const ALL: [Self; 5] = [
        Self::Text,
        Self::Number,
        Self::Switch,
        Self::Choice,
        Self::Password,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::Switch => "switch",
            Self::Choice => "choice",
            Self::Password => "password",
        }
    }
}

impl fmt::Display for InputKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such kind: one of {}", InputKind::ALL.map(InputKind::name).join(", "))]
pub struct InvalidInputKind;

impl FromStr for InputKind {
    type Err = InvalidInputKind;

    fn from_str(text: &str) -> Result<Self, InvalidInputKind> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or(InvalidInputKind)
    }
}

/// A value: as its kind has it, or as a text that says the same.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum InputValue {
    Switch(bool),
    Number(i64),
    Text(String),
    /// A password that was given.
    Kept(Kept),
}

/// Stands for a password: `{"kept": null}` in what is shown, and in a form for
/// the one that was given before.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Kept {
    pub kept: Option<String>,
}

impl InputValue {
    pub const HIDDEN: Self = Self::Kept(Kept { kept: None });

    /// For people: a password is not shown.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Switch(true) => "yes".to_owned(),
            Self::Switch(false) => "no".to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            Self::Kept(_) => "not shown".to_owned(),
        }
    }

    /// The text of a form's field.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Switch(on) => on.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            Self::Kept(_) => String::new(),
        }
    }
}

/// It may be a password.
impl fmt::Debug for InputValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InputValue")
    }
}

/// It is a password.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

/// Why a value is not one for its input. The value itself is not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInput {
    #[error("fill this in")]
    Missing,
    #[error("a whole number is wanted")]
    NoNumber,
    #[error("at least {0}")]
    TooSmall(i64),
    #[error("at most {0}")]
    TooLarge(i64),
    #[error("`true` or `false` is wanted")]
    NoSwitch,
    #[error("one of {}", .0.join(", "))]
    NoChoice(Vec<String>),
    #[error("a text is wanted")]
    NoText,
    #[error("at most {0} characters")]
    TooLong(u32),
    #[error("no control characters but line breaks and tabs")]
    Control,
    #[error("only the characters {0} are allowed")]
    Character(String),
    #[error("say it again: it was not kept")]
    NotKept,
}

/// Something that is filled in for every VM. Which of the bounds it may have is
/// its kind's to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TemplateInput {
    /// What the user-data calls it: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What people read.
    pub label: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    pub kind: InputKind,
    /// Whether a value has to be there; otherwise what stands in its place in
    /// the user-data is left out with it.
    #[serde(default)]
    pub required: bool,
    /// The value where none is given; a password has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<InputValue>,
    /// Of a text or a password, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
    /// The only characters of a text or a password, with ranges: `a-z0-9_`. A
    /// `-` of its own stands first or last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub characters: Option<String>,
    /// Of a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// Of a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// Of a choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
}

impl TemplateInput {
    /// The field of a form that its value is in.
    #[must_use]
    pub fn field(&self) -> String {
        format!("inputs.{}", self.name)
    }

    /// What is wrong with the declaration.
    pub(super) fn check(&self) -> Vec<FieldError> {
        let mut wrong = Vec::new();
        let mut note = |field: &str, message: String| wrong.push(FieldError::new(field, message));
        if let Err(error) = InputName::new(self.name.as_str()) {
            note("name", error.to_string());
        }
        if let Err(message) = line(&self.label, MAX_LABEL_CHARS) {
            note("label", message);
        }
        if !self.help.is_empty()
            && let Err(message) = line(&self.help, MAX_HELP_CHARS)
        {
            note("help", message);
        }
        let kind = self.kind;
        let text = matches!(kind, InputKind::Text | InputKind::Password);
        for (field, there, fits) in [
            ("max_length", self.max_length.is_some(), text),
            ("characters", self.characters.is_some(), text),
            ("min", self.min.is_some(), kind == InputKind::Number),
            ("max", self.max.is_some(), kind == InputKind::Number),
            (
                "choices",
                !self.choices.is_empty(),
                kind == InputKind::Choice,
            ),
            (
                "default",
                self.default.is_some(),
                kind != InputKind::Password,
            ),
        ] {
            if there && !fits {
                note(field, format!("a {kind} has none"));
            }
        }
        if self
            .max_length
            .is_some_and(|n| n == 0 || n > MAX_INPUT_CHARS)
        {
            note("max_length", format!("from 1 to {MAX_INPUT_CHARS}"));
        }
        if let Some(set) = &self.characters
            && let Err(message) = check_characters(set)
        {
            note("characters", message.to_owned());
        }
        for (field, bound) in [("min", self.min), ("max", self.max)] {
            if bound.is_some_and(|n| n.unsigned_abs() > MAX_NUMBER.unsigned_abs()) {
                note(field, format!("from -{MAX_NUMBER} to {MAX_NUMBER}"));
            }
        }
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            note("max", format!("less than the least, {min}"));
        }
        if kind == InputKind::Choice
            && let Err(message) = check_choices(&self.choices)
        {
            note("choices", message);
        }
        // What is wrong with the bounds is wrong with every value.
        if wrong.is_empty()
            && let Some(default) = &self.default
            && let Err(error) = self.value(Some(default))
        {
            wrong.push(FieldError::new("default", error));
        }
        wrong
    }

    /// The value it gets: the one that is given, else its default; `None` where
    /// there is none. A text that is given and empty is no value.
    ///
    /// # Errors
    /// Says what is wanted.
    pub fn value(&self, given: Option<&InputValue>) -> Result<Option<InputValue>, InvalidInput> {
        let Some(given) = given.or(self.default.as_ref()) else {
            return self.none();
        };
        let text = match given {
            InputValue::Kept(Kept { kept: None }) => return Err(InvalidInput::NotKept),
            InputValue::Kept(Kept { kept: Some(text) }) | InputValue::Text(text) => Some(text),
            InputValue::Switch(_) | InputValue::Number(_) => None,
        };
        if text.is_some_and(String::is_empty) {
            return self.none();
        }
        match (self.kind, given, text) {
            (InputKind::Text | InputKind::Password, _, Some(text)) => self.text(text),
            (InputKind::Text | InputKind::Password, _, None) => Err(InvalidInput::NoText),
            (InputKind::Choice, _, text) => match text {
                Some(text) if self.choices.contains(text) => Ok(text.clone()),
                _ => Err(InvalidInput::NoChoice(self.choices.clone())),
            },
            (InputKind::Switch, InputValue::Switch(on), _) => {
                return Ok(Some(InputValue::Switch(*on)));
            }
            (InputKind::Switch, _, text) => {
                let on = text.and_then(|text| text.parse().ok());
                let on = on.ok_or(InvalidInput::NoSwitch)?;
                return Ok(Some(InputValue::Switch(on)));
            }
            (InputKind::Number, InputValue::Number(number), _) => return self.number(*number),
            (InputKind::Number, _, text) => {
                let number = text.and_then(|text| text.trim().parse().ok());
                return self.number(number.ok_or(InvalidInput::NoNumber)?);
            }
        }
        .map(|text| Some(InputValue::Text(text)))
    }

    const fn none(&self) -> Result<Option<InputValue>, InvalidInput> {
        if self.required {
            Err(InvalidInput::Missing)
        } else {
            Ok(None)
        }
    }

    fn number(&self, number: i64) -> Result<Option<InputValue>, InvalidInput> {
        let (min, max) = (
            self.min.unwrap_or(-MAX_NUMBER),
            self.max.unwrap_or(MAX_NUMBER),
        );
        if number < min {
            Err(InvalidInput::TooSmall(min))
        } else if number > max {
            Err(InvalidInput::TooLarge(max))
        } else {
            Ok(Some(InputValue::Number(number)))
        }
    }

    fn text(&self, text: &str) -> Result<String, InvalidInput> {
        let longest = self.max_length.unwrap_or(MAX_INPUT_CHARS);
        if text
            .chars()
            .nth(usize::try_from(longest).unwrap_or(usize::MAX))
            .is_some()
        {
            return Err(InvalidInput::TooLong(longest));
        }
        if text
            .chars()
            .any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
        {
            return Err(InvalidInput::Control);
        }
        match &self.characters {
            Some(set) if !text.chars().all(|c| is_among(set, c)) => {
                Err(InvalidInput::Character(set.clone()))
            }
            _ => Ok(text.to_owned()),
        }
    }
}

/// The pieces of a set of characters: first and last of each range.
fn ranges(set: &str) -> impl Iterator<Item = (char, char)> {
    let mut rest = set.chars().peekable();
    std::iter::from_fn(move || {
        let first = rest.next()?;
        let mut ahead = rest.clone();
        if let (Some('-'), Some(last)) = (ahead.next(), ahead.next()) {
            rest = ahead;
            return Some((first, last));
        }
        Some((first, first))
    })
}

fn is_among(set: &str, c: char) -> bool {
    ranges(set).any(|(first, last)| (first..=last).contains(&c))
}

fn check_characters(set: &str) -> Result<(), &'static str> {
    if set.is_empty() {
        return Err("name at least one");
    }
    if set.chars().count() > MAX_LABEL_CHARS || set.chars().any(char::is_control) {
        return Err("a short line, such as `a-z0-9_`");
    }
    if ranges(set).any(|(first, last)| first > last) {
        return Err("a range begins with its first character: `a-z`");
    }
    Ok(())
}

fn check_choices(choices: &[String]) -> Result<(), String> {
    if choices.is_empty() || choices.len() > MAX_CHOICES {
        return Err(format!("from 1 to {MAX_CHOICES} choices"));
    }
    for (index, choice) in choices.iter().enumerate() {
        line(choice, MAX_LABEL_CHARS)?;
        if choices.iter().take(index).any(|other| other == choice) {
            return Err(format!("`{choice}` is there twice"));
        }
    }
    Ok(())
}

fn line(text: &str, longest: usize) -> Result<(), String> {
    if text.trim().is_empty() {
        Err("say something here".to_owned())
    } else if text.chars().count() > longest {
        Err(format!("at most {longest} characters"))
    } else if text.chars().any(char::is_control) {
        Err("no control characters".to_owned())
    } else {
        Ok(())
    }
}
