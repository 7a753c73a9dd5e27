//! YAML as a tree of plain data, read as cloud-init reads it (YAML 1.1).
//!
//! Anchors, aliases and tags are refused: nothing here is larger than what was
//! written.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// How deep lists and mappings may lie in each other.
const MAX_DEPTH: usize = 32;
/// Longest key in bytes; parsers of YAML 1.1 take no more than 1024.
const MAX_KEY_BYTES: usize = 512;

/// A list or a mapping that has not ended.
enum Open {
    List(Vec<Value>),
    Mapping {
        entries: Map<String, Value>,
        key: Option<String>,
    },
}

/// Reads one document.
///
/// # Errors
/// Says what is wrong, and in which line.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut tree = Tree::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| {
            let line = error.marker().line();
            format!("line {line} is no YAML: {}", error.info())
        })?;
        let line = span.start.line();
        tree.take(event)
            .map_err(|message| format!("line {line}: {message}"))?;
    }
    Ok(tree.root.unwrap_or(Value::Null))
}

#[derive(Default)]
struct Tree {
    root: Option<Value>,
    open: Vec<Open>,
}

const ANCHOR: &str = "anchors and aliases (`&`, `*`) are not taken here";
const TAG: &str = "tags (`!`) are not taken here";

impl Tree {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
            Event::Alias(_) => Err(ANCHOR.to_owned()),
            Event::Scalar(_, _, anchor, ref tag)
            | Event::SequenceStart(anchor, ref tag)
            | Event::MappingStart(anchor, ref tag)
                if anchor != 0 || tag.is_some() =>
            {
                Err(if anchor == 0 { TAG } else { ANCHOR }.to_owned())
            }
            Event::Scalar(text, style, _, _) => {
                if let Some(Open::Mapping { entries, key }) = self.open.last_mut()
                    && key.is_none()
                {
                    if text.len() > MAX_KEY_BYTES {
                        return Err(format!("a key has at most {MAX_KEY_BYTES} bytes"));
                    }
                    if entries.contains_key(text.as_ref()) {
                        return Err(format!("`{text}` is there twice"));
                    }
                    *key = Some(text.into_owned());
                    return Ok(());
                }
                let value = match style {
                    ScalarStyle::Plain => plain(&text),
                    ScalarStyle::SingleQuoted
                    | ScalarStyle::DoubleQuoted
                    | ScalarStyle::Literal
                    | ScalarStyle::Folded => Value::String(text.into_owned()),
                };
                self.put(value)
            }
            Event::SequenceStart(..) => self.begin(Open::List(Vec::new())),
            Event::MappingStart(..) => self.begin(Open::Mapping {
                entries: Map::new(),
                key: None,
            }),
            Event::SequenceEnd | Event::MappingEnd => {
                let value = match self.open.pop() {
                    Some(Open::List(items)) => Value::Array(items),
                    Some(Open::Mapping { entries, .. }) => Value::Object(entries),
                    None => return Err("something ends that did not begin".to_owned()),
                };
                self.put(value)
            }
        }
    }

    fn begin(&mut self, open: Open) -> Result<(), String> {
        if let Some(Open::Mapping { key: None, .. }) = self.open.last() {
            return Err("a key is a text".to_owned());
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH}"));
        }
        self.open.push(open);
        Ok(())
    }

    fn put(&mut self, value: Value) -> Result<(), String> {
        match self.open.last_mut() {
            Some(Open::List(items)) => items.push(value),
            Some(Open::Mapping { entries, key }) => {
                let key = key.take().ok_or("a key is a text")?;
                entries.insert(key, value);
            }
            None if self.root.is_some() => return Err("only one document is taken".to_owned()),
            None => self.root = Some(value),
        }
        Ok(())
    }
}

/// What a scalar without quotes means in YAML 1.1. What is written in a way
/// that is rare there, a time or a number to the base 60, stays a text.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    let (sign, digits) = match text.split_at_checked(1) {
        Some((sign @ ("-" | "+"), digits)) => (sign.trim_start_matches('+'), digits),
        _ => ("", text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return Value::String(text.to_owned());
    }
    let whole = |digits: &str, radix| {
        let digits = digits.replace('_', "");
        i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
    };
    let number = if let Some(hex) = digits.strip_prefix("0x") {
        whole(hex, 16)
    } else if let Some(bits) = digits.strip_prefix("0b") {
        whole(bits, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        whole(digits, 8)
    } else {
        whole(digits, 10)
    };
    if let Some(number) = number {
        return Value::from(number);
    }
    let decimal = digits.contains('.') && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    match text.parse::<f64>() {
        Ok(number) if decimal => Value::from(number),
        _ => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_mean_what_they_mean_to_cloud_init() {
        let text = "
a: [yes, Off, ~, 12, -7, 0644, 0x1f, 1_000, 1.5, 08, '12', \"yes\", 1:30, 2024-01-02, -x, a b]
b: |
  one
  two
c:
";
        let wanted = json!({
            "a": [true, false, null, 12, -7, 420, 31, 1000, 1.5, "08", "12", "yes", "1:30",
                  "2024-01-02", "-x", "a b"],
            "b": "one\ntwo\n",
            "c": null,
        });
        assert_eq!(parse(text).unwrap(), wanted);
        assert_eq!(parse("#cloud-config\n").unwrap(), Value::Null);
    }

    #[test]
    fn what_is_more_than_data_is_refused_with_its_line() {
        let refusal = |text: &str| parse(text).unwrap_err();
        let laughs = "a: &a [x]\nb: [*a, *a]\n";
        assert_eq!(refusal(laughs), format!("line 1: {ANCHOR}"));
        assert_eq!(refusal("\na: !!binary aGk=\n"), format!("line 2: {TAG}"));
        assert_eq!(refusal("a: 1\na: 2\n"), "line 2: `a` is there twice");
        assert_eq!(refusal("? [a]\n: b\n"), "line 1: a key is a text");
        assert_eq!(refusal("a\n---\nb\n"), "line 3: only one document is taken");
        assert!(
            refusal("a: [\n").contains("is no YAML"),
            "{}",
            refusal("a: [\n")
        );
        for deep in ["[", "- "] {
            let message = "line 1: nested deeper than 32";
            assert_eq!(refusal(&deep.repeat(MAX_DEPTH + 1)), message);
            assert!(parse(&deep.repeat(30_000)).is_err());
        }
        let key = "k".repeat(MAX_KEY_BYTES + 1);
        assert!(refusal(&format!("{{{key}: 1}}")).contains("a key has at most"));
    }
}
