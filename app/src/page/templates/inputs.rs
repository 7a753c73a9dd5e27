//! What a template asks for, as somebody says it: a group of fields each.

use leptos::prelude::*;
use vimana_model::template::{InputKind, InputValue, MAX_INPUTS, TemplateInput};
use vimana_ui::{
    Button, CheckField, Choice, Each, IconName, Item, SelectField, TextAreaField, TextField, part,
    text,
};

use super::form::Draft;

/// An input as it is typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Typed {
    name: String,
    label: String,
    help: String,
    kind: String,
    required: bool,
    default: String,
    max_length: String,
    characters: String,
    min: String,
    max: String,
    /// A line each.
    choices: String,
}

/// What was typed where a number belongs.
const NO_NUMBER: &str = "a whole number is wanted";

impl Typed {
    fn of(input: &TemplateInput) -> Self {
        let number = |number: Option<String>| number.unwrap_or_default();
        Self {
            name: input.name.clone(),
            label: input.label.clone(),
            help: input.help.clone(),
            kind: input.kind.name().to_owned(),
            required: input.required,
            default: number(input.default.as_ref().map(InputValue::text)),
            max_length: number(input.max_length.map(|n| n.to_string())),
            characters: input.characters.clone().unwrap_or_default(),
            min: number(input.min.map(|n| n.to_string())),
            max: number(input.max.map(|n| n.to_string())),
            choices: input.choices.join("\n"),
        }
    }

    fn kind(&self) -> InputKind {
        self.kind.parse().unwrap_or_default()
    }

    /// What it says. Fields of other kinds are left out: they are not seen.
    fn read(&self) -> TemplateInput {
        let kind = self.kind();
        let is_text = matches!(kind, InputKind::Text | InputKind::Password);
        let is_number = kind == InputKind::Number;
        let filled = |text: &String| (!text.is_empty()).then(|| text.clone());
        let bound = |text: &String| text.trim().parse().ok().filter(|_| is_number);
        let default = match (kind, self.default.trim()) {
            (InputKind::Password, _) | (InputKind::Number | InputKind::Switch, "") => None,
            (InputKind::Switch, on) => Some(InputValue::Switch(on == "true")),
            (InputKind::Text | InputKind::Choice, _) => filled(&self.default).map(InputValue::Text),
            (InputKind::Number, text) => Some(match text.parse() {
                Ok(number) => InputValue::Number(number),
                Err(_) => InputValue::Text(text.to_owned()),
            }),
        };
        let choices = self.choices.lines().map(str::trim);
        let choices = choices.filter(|line| !line.is_empty() && kind == InputKind::Choice);
        let max_length = self.max_length.trim().parse().ok();
        TemplateInput {
            name: self.name.clone(),
            label: self.label.clone(),
            help: self.help.clone(),
            kind,
            required: self.required,
            default,
            max_length: max_length.filter(|_| is_text),
            characters: filled(&self.characters).filter(|_| is_text),
            min: bound(&self.min),
            max: bound(&self.max),
            choices: choices.map(str::to_owned).collect(),
        }
    }

    /// What was typed as a bound and is no number, by the field's name.
    fn unread(&self) -> Option<&'static str> {
        let no_number = |text: &str| !text.trim().is_empty() && text.trim().parse::<i64>().is_err();
        let length = self.max_length.trim();
        let no_length = || !length.is_empty() && length.parse::<u32>().is_err();
        match self.kind() {
            InputKind::Text | InputKind::Password => no_length().then_some("max_length"),
            InputKind::Number if no_number(&self.min) => Some("min"),
            InputKind::Number if no_number(&self.max) => Some("max"),
            InputKind::Number | InputKind::Switch | InputKind::Choice => None,
        }
    }
}

/// An input under the pen.
#[derive(Clone)]
pub struct InputDraft {
    /// Tells it from the others, wherever it stands among them.
    key: usize,
    /// What it was: nobody's form rewrites what nobody changed.
    before: Option<TemplateInput>,
    name: ArcRwSignal<String>,
    label: ArcRwSignal<String>,
    help: ArcRwSignal<String>,
    kind: ArcRwSignal<String>,
    required: ArcRwSignal<bool>,
    default: ArcRwSignal<String>,
    max_length: ArcRwSignal<String>,
    characters: ArcRwSignal<String>,
    min: ArcRwSignal<String>,
    max: ArcRwSignal<String>,
    choices: ArcRwSignal<String>,
}

impl InputDraft {
    fn new(key: usize, before: Option<TemplateInput>) -> Self {
        let typed = Typed::of(before.as_ref().unwrap_or(&TemplateInput::default()));
        Self {
            key,
            before,
            name: ArcRwSignal::new(typed.name),
            label: ArcRwSignal::new(typed.label),
            help: ArcRwSignal::new(typed.help),
            kind: ArcRwSignal::new(typed.kind),
            required: ArcRwSignal::new(typed.required),
            default: ArcRwSignal::new(typed.default),
            max_length: ArcRwSignal::new(typed.max_length),
            characters: ArcRwSignal::new(typed.characters),
            min: ArcRwSignal::new(typed.min),
            max: ArcRwSignal::new(typed.max),
            choices: ArcRwSignal::new(typed.choices),
        }
    }

    fn typed(&self) -> Typed {
        Typed {
            name: self.name.get(),
            label: self.label.get(),
            help: self.help.get(),
            kind: self.kind.get(),
            required: self.required.get(),
            default: self.default.get(),
            max_length: self.max_length.get(),
            characters: self.characters.get(),
            min: self.min.get(),
            max: self.max.get(),
            choices: self.choices.get(),
        }
    }

    fn read(&self) -> TemplateInput {
        let typed = self.typed();
        let same = |before: &&TemplateInput| Typed::of(before) == typed;
        let before = self.before.as_ref().filter(same).cloned();
        before.unwrap_or_else(|| typed.read())
    }
}

/// All inputs of a template under the pen.
#[derive(Clone, Copy)]
pub struct InputDrafts {
    all: RwSignal<Vec<InputDraft>>,
    next: StoredValue<usize>,
}

impl InputDrafts {
    pub fn of(inputs: Vec<TemplateInput>) -> Self {
        let next = inputs.len();
        let all = inputs.into_iter().enumerate();
        let all = all.map(|(key, input)| InputDraft::new(key, Some(input)));
        Self {
            all: RwSignal::new(all.collect()),
            next: StoredValue::new(next),
        }
    }

    pub fn read(self) -> Vec<TemplateInput> {
        self.all
            .with(|all| all.iter().map(InputDraft::read).collect())
    }

    /// Where something was typed that cannot be read: field and sentence.
    pub fn unread(self) -> Option<(String, &'static str)> {
        self.all.with(|all| {
            let mut all = all.iter().enumerate();
            all.find_map(|(index, input)| {
                let field = input.typed().unread()?;
                Some((format!("inputs.{index}.{field}"), NO_NUMBER))
            })
        })
    }

    fn place(self, key: usize) -> Option<usize> {
        self.all
            .with(|all| all.iter().position(|input| input.key == key))
    }

    fn add(self) {
        let key = self.next.get_value();
        self.next.set_value(key.saturating_add(1));
        let input = InputDraft::new(key, None);
        self.all.update(|all| all.push(input));
    }

    fn remove(self, key: usize) {
        self.all.update(|all| all.retain(|input| input.key != key));
    }

    /// One place up.
    fn raise(self, key: usize) {
        self.all.update(|all| {
            let place = all.iter().position(|input| input.key == key);
            if let Some(before) = place.and_then(|place| place.checked_sub(1)) {
                all.swap(before, before.saturating_add(1));
            }
        });
    }
}

/// What somebody who starts from the template is asked for.
#[component]
pub fn InputsEditor(draft: Draft) -> impl IntoView {
    let inputs = draft.inputs;
    let items = Signal::derive(move || {
        let all = inputs.all.get().into_iter();
        all.map(|input| {
            Item::new(input.key, move || {
                view! { <InputEditor draft=draft input=input.clone()/> }
            })
        })
        .collect::<Vec<_>>()
    });
    let full = Signal::derive(move || {
        let full = inputs.all.with(Vec::len) >= MAX_INPUTS;
        full.then(|| format!("A template has at most {MAX_INPUTS} inputs."))
    });
    let error = draft.error("inputs");
    view! {
        <fieldset class="terms" id="inputs">
            <legend>"Inputs"</legend>
            <p class="field-hint">
                "What whoever starts from the template fills in. "
                <code>"{input: NAME}"</code>
                " in the user-data stands for it."
            </p>
            <Each items=items/>
            <p class="field-error" role="alert">{text(move || error.get().unwrap_or_default())}</p>
            <div>
                <Button
                    id="add-input"
                    label="Add an input".to_owned()
                    icon=IconName::Plus
                    blocked=full
                    on_press=Callback::new(move |()| inputs.add())
                />
            </div>
        </fieldset>
    }
    .into_any()
}

#[component]
fn InputEditor(draft: Draft, input: InputDraft) -> impl IntoView {
    let inputs = draft.inputs;
    let key = input.key;
    let id = move |field: &str| format!("input-{key}-{field}");
    let error = move |field: &'static str| draft.input_error(move || inputs.place(key), field);
    let name = RwSignal::from(input.name.clone());
    let called = move || {
        let number = inputs.place(key).unwrap_or_default().saturating_add(1);
        match name.get() {
            name if name.is_empty() => format!("input {number}"),
            name => format!("input {name}"),
        }
    };
    let title = text(move || {
        let number = inputs.place(key).unwrap_or_default().saturating_add(1);
        format!("Input {number}")
    });
    let kinds = InputKind::ALL.map(|kind| Choice {
        value: kind.name().to_owned(),
        text: match kind {
            InputKind::Text => "A text",
            InputKind::Number => "A whole number",
            InputKind::Switch => "On or off",
            InputKind::Choice => "One of several",
            InputKind::Password => "A password",
        }
        .to_owned(),
    });
    let first = Signal::derive(move || {
        (inputs.place(key) == Some(0)).then(|| "It is the first already.".to_owned())
    });
    let kind = RwSignal::from(input.kind.clone());
    let (label, help) = (input.label.clone(), input.help.clone());
    let (label, help) = (RwSignal::from(label), RwSignal::from(help));
    let of_kind = part(move || Some(bounds(&input, &id, &error)));
    view! {
        <fieldset class="terms">
            <legend>{title}</legend>
            <div class="amounts">
                <TextField
                    id=id("name")
                    label="Name in the user-data"
                    value=name
                    error=error("name")
                />
                <TextField id=id("label") label="What people read" value=label error=error("label")/>
            </div>
            <TextField
                id=id("help")
                label="Explanation"
                optional=true
                value=help
                error=error("help")
            />
            <SelectField id=id("kind") label="Kind" choices=kinds.to_vec() value=kind error=error("kind")/>
            {of_kind}
            <div class="form-answers">
                <Button
                    id=id("raise")
                    label=Signal::derive(move || format!("Move {} up", called()))
                    blocked=first
                    on_press=Callback::new(move |()| inputs.raise(key))
                />
                <Button
                    id=id("remove")
                    label=Signal::derive(move || format!("Remove {}", called()))
                    on_press=Callback::new(move |()| inputs.remove(key))
                />
            </div>
        </fieldset>
    }
    .into_any()
}

/// Short fields, where there is room for both.
fn beside(fields: [AnyView; 2]) -> AnyView {
    view! { <div class="amounts">{fields.into_iter().collect::<Vec<_>>()}</div> }.into_any()
}

/// The fields that its kind has.
fn bounds(
    input: &InputDraft,
    id: &impl Fn(&str) -> String,
    error: &impl Fn(&'static str) -> Signal<Option<String>>,
) -> AnyView {
    let line = |field: &'static str, label: &'static str, value: &ArcRwSignal<String>| {
        view! {
            <TextField
                id=id(field)
                label=label
                optional=true
                value=RwSignal::from(value.clone())
                error=error(field)
            />
        }
        .into_any()
    };
    let required = || {
        view! {
            <CheckField
                id=id("required")
                label="It has to be filled in"
                hint="Otherwise what stands in its place in the user-data is left out with it."
                value=RwSignal::from(input.required.clone())
            />
        }
        .into_any()
    };
    let default = || line("default", "Value where none is given", &input.default);
    let choice = |value: &str, text: &str| Choice {
        value: value.to_owned(),
        text: text.to_owned(),
    };
    let kind = input.kind.get().parse().unwrap_or_default();
    let fields = match kind {
        InputKind::Switch => vec![
            view! {
                <SelectField
                    id=id("default")
                    label="Where nothing is said"
                    choices=vec![choice("", "It is neither"), choice("true", "It is on"), choice("false", "It is off")]
                    value=RwSignal::from(input.default.clone())
                    error=error("default")
                />
            }
            .into_any(),
            required(),
        ],
        InputKind::Number => vec![
            beside([
                line("min", "At least", &input.min),
                line("max", "At most", &input.max),
            ]),
            default(),
            required(),
        ],
        InputKind::Choice => vec![
            view! {
                <TextAreaField
                    id=id("choices")
                    label="Choices, a line each"
                    required=true
                    value=RwSignal::from(input.choices.clone())
                    error=error("choices")
                />
            }
            .into_any(),
            default(),
            required(),
        ],
        kind @ (InputKind::Text | InputKind::Password) => vec![
            beside([
                line("max_length", "Longest, in characters", &input.max_length),
                view! {
                    <TextField
                        id=id("characters")
                        label="Only these characters"
                        hint="Such as a-z0-9_."
                        optional=true
                        value=RwSignal::from(input.characters.clone())
                        error=error("characters")
                    />
                }
                .into_any(),
            ]),
            if kind == InputKind::Text {
                view! {
                    <TextAreaField
                        id=id("default")
                        label="Value where none is given"
                        rows="2"
                        value=RwSignal::from(input.default.clone())
                        error=error("default")
                    />
                }
                .into_any()
            } else {
                ().into_any()
            },
            required(),
        ],
    };
    fields.into_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(kind: InputKind) -> Typed {
        Typed {
            name: "n".to_owned(),
            label: "N".to_owned(),
            kind: kind.name().to_owned(),
            ..Typed::default()
        }
    }

    #[test]
    fn what_nobody_changed_stays_as_it_is() {
        let input = TemplateInput {
            kind: InputKind::Switch,
            default: Some(InputValue::Text("true".to_owned())),
            required: true,
            ..TemplateInput::default()
        };
        let draft = InputDraft::new(0, Some(input.clone()));
        assert_eq!(draft.read(), input);
        draft.label.set("another".to_owned());
        assert_eq!(draft.read().default, Some(InputValue::Switch(true)));
    }

    #[test]
    fn blanks_that_mean_something_are_kept() {
        let input = Typed {
            characters: "a-z ".to_owned(),
            default: " one\ntwo".to_owned(),
            ..typed(InputKind::Text)
        };
        let read = input.read();
        assert_eq!(read.characters.as_deref(), Some("a-z "));
        assert_eq!(read.default, Some(InputValue::Text(" one\ntwo".to_owned())));
        assert_eq!(Typed::of(&read), input);
    }

    #[test]
    fn fields_of_other_kinds_are_left_out() {
        let input = Typed {
            max_length: "x".to_owned(),
            min: "1".to_owned(),
            choices: "a\n\n b \n".to_owned(),
            ..typed(InputKind::Choice)
        };
        assert_eq!(input.unread(), None);
        let read = input.read();
        assert_eq!((read.max_length, read.min), (None, None));
        assert_eq!(read.choices, ["a", "b"]);
        let kind = InputKind::Number.name().to_owned();
        let max = "many".to_owned();
        let input = Typed { kind, max, ..input };
        assert_eq!(input.unread(), Some("max"));
        assert_eq!(input.read().min, Some(1));
    }
}
