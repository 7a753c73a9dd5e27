//! What a template wants to be filled in, a field each.

use leptos::prelude::*;
use vimana_model::template::{InputKind, InputValue, Inputs, TemplateInput, TemplateView};
use vimana_ui::{CheckField, Choice, SelectField, TextAreaField, TextField};

use super::TermsDraft;

/// Longest text that has one line to itself.
const MAX_LINE_CHARS: u32 = 200;

/// An input and what is filled in for it.
#[derive(Clone)]
pub struct FilledIn {
    input: TemplateInput,
    text: ArcRwSignal<String>,
    on: ArcRwSignal<bool>,
}

impl FilledIn {
    /// Those of a template, as it begins.
    pub fn of(template: &TemplateView) -> Vec<Self> {
        let begun = |input: &TemplateInput| Self {
            input: input.clone(),
            text: ArcRwSignal::new(
                input
                    .default
                    .as_ref()
                    .map(InputValue::text)
                    .unwrap_or_default(),
            ),
            on: ArcRwSignal::new(input.default == Some(InputValue::Switch(true))),
        };
        template.inputs.iter().map(begun).collect()
    }

    fn value(&self) -> InputValue {
        match self.input.kind {
            InputKind::Switch => InputValue::Switch(self.on.get()),
            InputKind::Text | InputKind::Number | InputKind::Choice | InputKind::Password => {
                InputValue::Text(self.text.get())
            }
        }
    }

    /// What is wrong with it.
    pub fn error(&self) -> Option<String> {
        let error = self.input.value(Some(&self.value())).err();
        error.map(|error| error.to_string())
    }

    pub fn is(&self, field: &str) -> bool {
        field.strip_prefix("inputs.") == Some(self.input.name.as_str())
    }
}

/// What is filled in, as it is sent.
pub fn values(fields: &[FilledIn]) -> Inputs {
    let pair = |field: &FilledIn| (field.input.name.clone(), field.value());
    fields.iter().map(pair).collect()
}

/// The fields of a template's inputs.
#[component]
pub fn InputFields(draft: TermsDraft, fields: Vec<FilledIn>) -> impl IntoView {
    fields
        .into_iter()
        .map(|field| one(draft, field))
        .collect::<Vec<_>>()
}

fn one(draft: TermsDraft, field: FilledIn) -> AnyView {
    let FilledIn { input, text, on } = field;
    let id = input.field();
    let error = draft.error(id.clone());
    let leave = draft.touch(id.clone());
    let (label, help) = (input.label, input.help);
    let value = RwSignal::from(text);
    let short = input.max_length.is_some_and(|n| n <= MAX_LINE_CHARS);
    match input.kind {
        InputKind::Switch => {
            view! { <CheckField id=id label=label hint=help value=RwSignal::from(on)/> }.into_any()
        }
        InputKind::Choice => {
            let none = value.with_untracked(String::is_empty);
            let none = (none || !input.required).then(|| Choice {
                value: String::new(),
                text: "—".to_owned(),
            });
            let named = |value: String| Choice {
                text: value.clone(),
                value,
            };
            let choices = none.into_iter().chain(input.choices.into_iter().map(named));
            view! {
                <SelectField id=id label=label hint=help choices=choices.collect() value=value error=error/>
            }
            .into_any()
        }
        InputKind::Text if !short => view! {
            <TextAreaField
                id=id
                label=label
                hint=help
                required=input.required
                value=value
                error=error
                on_leave=leave
            />
        }
        .into_any(),
        kind @ (InputKind::Text | InputKind::Number | InputKind::Password) => view! {
            <TextField
                id=id
                label=label
                hint=help
                secret=kind == InputKind::Password
                autocomplete=if kind == InputKind::Password { "new-password" } else { "off" }
                numeric=kind == InputKind::Number
                optional=!input.required
                value=value
                error=error
                on_leave=leave
            />
        }
        .into_any(),
    }
}
