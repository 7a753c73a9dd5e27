//! A template's user-data: a tree with places for inputs. A value is put into
//! the tree, never into the text, so that none can leave its place.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use vimana_model::template::{CLOUD_CONFIG, InputValue, Inputs, Kept};
use vimana_model::user_data::UserData;

use super::yaml;

/// `{input: NAME}` stands for the value of an input.
const MARKER: &str = "input";

#[derive(Debug)]
pub struct CloudConfig {
    entries: Map<String, Value>,
    inputs: BTreeSet<String>,
}

impl CloudConfig {
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entries = match yaml::parse(text)? {
            Value::Null => Map::new(),
            Value::Object(entries) if !entries.contains_key(MARKER) => entries,
            Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                return Err("a cloud-config is a mapping of its settings".to_owned());
            }
        };
        let mut inputs = BTreeSet::new();
        for value in entries.values() {
            look_for_inputs(value, &mut inputs)?;
        }
        Ok(Self { entries, inputs })
    }

    /// The inputs that it has a place for.
    pub const fn inputs(&self) -> &BTreeSet<String> {
        &self.inputs
    }

    /// The user-data with these values in their places. Where there is no value,
    /// the place is left out.
    ///
    /// # Errors
    /// Says that it is too long.
    pub fn fill(self, values: &Inputs) -> Result<UserData, String> {
        let mut text = format!("{CLOUD_CONFIG}\n");
        for (key, value) in self.entries {
            if let Some(value) = filled(value, values) {
                text.push_str(&json(&Value::String(key)));
                text.push_str(": ");
                text.push_str(&json(&value));
                text.push('\n');
            }
        }
        UserData::new(text).map_err(|error| format!("with these inputs the user-data is {error}"))
    }
}

/// The name of the input that a value is the place of.
fn marked(value: &Value) -> Option<&Value> {
    let entries = value.as_object().filter(|entries| entries.len() == 1)?;
    entries.get(MARKER)
}

fn look_for_inputs(value: &Value, found: &mut BTreeSet<String>) -> Result<(), String> {
    match (marked(value), value) {
        (Some(Value::String(name)), _) => {
            found.insert(name.clone());
        }
        (Some(_), _) => {
            return Err("`{input: …}` names an input; put a number in quotes".to_owned());
        }
        (None, Value::Array(items)) => {
            for item in items {
                look_for_inputs(item, found)?;
            }
        }
        (None, Value::Object(entries)) => {
            for value in entries.values() {
                look_for_inputs(value, found)?;
            }
        }
        (None, Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {}
    }
    Ok(())
}

fn filled(value: Value, values: &Inputs) -> Option<Value> {
    if let Some(name) = marked(&value) {
        let value = name.as_str().and_then(|name| values.get(name))?;
        return match value {
            InputValue::Switch(on) => Some(Value::Bool(*on)),
            InputValue::Number(number) => Some(Value::from(*number)),
            InputValue::Text(text) => Some(Value::String(text.clone())),
            InputValue::Kept(Kept { kept }) => kept.clone().map(Value::String),
        };
    }
    Some(match value {
        Value::Array(items) => {
            let items = items.into_iter().filter_map(|item| filled(item, values));
            Value::Array(items.collect())
        }
        Value::Object(entries) => {
            let entry = |(key, value)| filled(value, values).map(|value| (key, value));
            Value::Object(entries.into_iter().filter_map(entry).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    })
}

/// JSON, which is YAML: but for the characters that YAML 1.1 takes for line
/// breaks, or does not take at all, which are therefore escaped. They only occur
/// in texts.
fn json(value: &Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEMPLATE: &str = "#cloud-config
package_update: yes
locale: {input: text}
users:
  - default
  - name: {input: user}
    passwd: {input: password}
write_files:
  - path: /etc/motd
    content: {input: text}
    permissions: '0644'
runcmd:
  - [systemctl, enable, {input: service}]
  - {input: command}
ssh_pwauth:
  input: login
";

    fn inputs(pairs: &[(&str, InputValue)]) -> Inputs {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect()
    }

    fn text(text: &str) -> InputValue {
        InputValue::Text(text.to_owned())
    }

    fn filled_with(value: &str) -> Value {
        let config = CloudConfig::parse(TEMPLATE).unwrap();
        let values = inputs(&[("text", text(value)), ("login", InputValue::Switch(true))]);
        let data = config.fill(&values).unwrap();
        yaml::parse(data.as_str()).unwrap()
    }

    #[test]
    fn places_are_found_and_filled() {
        let config = CloudConfig::parse(TEMPLATE).unwrap();
        let names: Vec<&str> = config.inputs().iter().map(String::as_str).collect();
        let wanted = ["command", "login", "password", "service", "text", "user"];
        assert_eq!(names, wanted);
        let values = inputs(&[
            ("user", text("ada")),
            ("text", text("hello")),
            ("service", text("x")),
            ("login", InputValue::Switch(false)),
        ]);
        let data = config.fill(&values).unwrap();
        assert_eq!(
            data.as_str(),
            "#cloud-config\n\
             \"locale\": \"hello\"\n\
             \"package_update\": true\n\
             \"runcmd\": [[\"systemctl\",\"enable\",\"x\"]]\n\
             \"ssh_pwauth\": false\n\
             \"users\": [\"default\",{\"name\":\"ada\"}]\n\
             \"write_files\": [{\"content\":\"hello\",\"path\":\"/etc/motd\",\
             \"permissions\":\"0644\"}]\n"
        );
    }

    /// Each of them would say something else if it were pasted.
    #[test]
    fn no_value_leaves_its_place() {
        for value in [
            "a\nruncmd:\n  - reboot",
            "a: b",
            "'",
            "\"",
            "\", \"x\": \"y",
            "\\",
            "\\\"",
            "#cloud-config",
            "a # b",
            "&a x",
            "*a",
            "!!python/object x",
            "{input: password}",
            "[x, y]",
            "- x",
            "| x",
            "---\nx",
            "...",
            "%YAML 1.1",
            "yes",
            "0644",
            "null",
            "\r\n",
            "\t",
            "\u{85}\u{2028}\u{2029}\u{feff}\u{9b}",
            "\u{1f980} \u{e9}",
            "{{ v1 }}",
            &"x\n: \"'".repeat(2_000),
        ] {
            let found = filled_with(value);
            let wanted = json!({
                "locale": value,
                "package_update": true,
                "users": ["default", {}],
                "write_files": [
                    {"path": "/etc/motd", "content": value, "permissions": "0644"},
                ],
                "runcmd": [["systemctl", "enable"]],
                "ssh_pwauth": true,
            });
            assert_eq!(found, wanted, "{value:?}");
        }
    }

    #[test]
    fn what_yaml_takes_for_a_line_break_is_escaped() {
        let odd = "\u{85}\u{2028}\u{feff}\u{ffff}";
        let text = json(&json!(odd));
        assert_eq!(text, r#""\u0085\u2028\ufeff\uffff""#);
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), odd);
    }

    #[test]
    fn what_grows_too_long_is_refused() {
        let config = CloudConfig::parse(TEMPLATE).unwrap();
        // Six bytes for one.
        let values = inputs(&[("text", text(&"\u{1}".repeat(11_000)))]);
        let message = config.fill(&values).unwrap_err();
        assert_eq!(
            message,
            "with these inputs the user-data is longer than 64 KiB"
        );
    }

    #[test]
    fn what_is_no_cloud_config_is_refused() {
        for odd in ["- a", "input: x", "a", "a: {input: [x]}", "a: {input: 7}"] {
            assert!(CloudConfig::parse(odd).is_err(), "{odd}");
        }
        assert!(CloudConfig::parse("#cloud-config\n").is_ok());
        // Beside others it is a word like any other.
        let config = CloudConfig::parse("a: {input: x, b: c}").unwrap();
        assert!(config.inputs().is_empty());
    }
}
