use super::*;

fn input(kind: InputKind) -> TemplateInput {
    TemplateInput {
        name: "x".to_owned(),
        label: "X".to_owned(),
        kind,
        ..TemplateInput::default()
    }
}

fn text(text: &str) -> InputValue {
    InputValue::Text(text.to_owned())
}

fn refusal(input: &TemplateInput, value: &InputValue) -> String {
    input.value(Some(value)).unwrap_err().to_string()
}

fn fields(error: &Error) -> Vec<&str> {
    error.fields.iter().map(|f| f.field.as_str()).collect()
}

#[test]
fn all_wrong_fields_are_reported_at_once() {
    let form = CreateTemplate {
        name: "a b".to_owned(),
        description: "\u{7}".to_owned(),
        image: Some("../x".to_owned()),
        flavor: Some(" ".to_owned()),
        user_data: Some("#!/bin/sh\n".to_owned()),
        inputs: vec![
            input(InputKind::Text),
            TemplateInput {
                label: String::new(),
                max_length: Some(0),
                ..input(InputKind::Number)
            },
        ],
        public: false,
    };
    let error = form.check().unwrap_err();
    let wanted = [
        "name",
        "description",
        "image",
        "user_data",
        "inputs.1.name",
        "inputs.1.label",
        "inputs.1.max_length",
        "inputs.1.max_length",
    ];
    assert_eq!(fields(&error), wanted);
}

#[test]
fn bounds_belong_to_their_kind_and_make_sense() {
    let wrong = |input: TemplateInput| {
        let wrong = input.check();
        let wrong: Vec<String> = wrong.iter().map(|error| error.field.clone()).collect();
        wrong.join(" ")
    };
    for kind in InputKind::ALL {
        let plain = match kind {
            InputKind::Choice => "choices",
            InputKind::Text | InputKind::Number | InputKind::Switch | InputKind::Password => "",
        };
        assert_eq!(wrong(input(kind)), plain, "{kind}");
    }
    let number = |min, max, default| TemplateInput {
        min,
        max,
        default,
        ..input(InputKind::Number)
    };
    assert_eq!(wrong(number(Some(2), Some(1), None)), "max");
    assert_eq!(wrong(number(Some(i64::MIN), None, None)), "min");
    let low = Some(InputValue::Number(0));
    assert_eq!(wrong(number(Some(1), Some(9), low)), "default");
    let secret = TemplateInput {
        default: Some(text("hunter2")),
        ..input(InputKind::Password)
    };
    assert_eq!(wrong(secret), "default");
    for set in ["", "z-a", "a\n"] {
        let odd = TemplateInput {
            characters: Some(set.to_owned()),
            ..input(InputKind::Text)
        };
        assert_eq!(wrong(odd), "characters", "{set:?}");
    }
    let twice = TemplateInput {
        choices: vec!["a".to_owned(), "a".to_owned()],
        ..input(InputKind::Choice)
    };
    assert_eq!(wrong(twice), "choices");
}

#[test]
fn values_are_what_their_kind_wants() {
    let number = TemplateInput {
        min: Some(1),
        max: Some(65_535),
        ..input(InputKind::Number)
    };
    let some = |value: InputValue| Ok(Some(value));
    assert_eq!(
        number.value(Some(&text(" 80 "))),
        some(InputValue::Number(80))
    );
    assert_eq!(refusal(&number, &InputValue::Number(0)), "at least 1");
    assert_eq!(refusal(&number, &text("65536")), "at most 65535");
    for odd in ["1.5", "0x10", "9999999999999999999"] {
        assert_eq!(refusal(&number, &text(odd)), "a whole number is wanted");
    }
    assert!(number.value(Some(&InputValue::Switch(true))).is_err());

    let switch = input(InputKind::Switch);
    assert_eq!(
        switch.value(Some(&text("true"))),
        some(InputValue::Switch(true))
    );
    assert_eq!(
        refusal(&switch, &text("yes")),
        "`true` or `false` is wanted"
    );

    let choice = TemplateInput {
        choices: vec!["red".to_owned(), "green".to_owned()],
        ..input(InputKind::Choice)
    };
    assert_eq!(choice.value(Some(&text("red"))), some(text("red")));
    assert_eq!(refusal(&choice, &text("blue")), "one of red, green");

    let word = TemplateInput {
        max_length: Some(3),
        characters: Some("a-cx-".to_owned()),
        ..input(InputKind::Text)
    };
    assert_eq!(word.value(Some(&text("a-x"))), some(text("a-x")));
    assert_eq!(
        refusal(&word, &text("ab\u{e9}")),
        "only the characters a-cx- are allowed"
    );
    assert_eq!(refusal(&word, &text("abca")), "at most 3 characters");
    let free = input(InputKind::Text);
    assert_eq!(free.value(Some(&text("a\nb"))), some(text("a\nb")));
    assert!(free.value(Some(&text("a\0b"))).is_err());
    assert_eq!(refusal(&free, &InputValue::Number(7)), "a text is wanted");
}

#[test]
fn what_is_not_given_has_its_default_or_is_needed() {
    let hello = TemplateInput {
        default: Some(text("hello")),
        ..input(InputKind::Text)
    };
    assert_eq!(hello.value(None), Ok(Some(text("hello"))));
    assert_eq!(hello.value(Some(&text(""))), Ok(None));
    let needed = TemplateInput {
        required: true,
        ..hello
    };
    assert_eq!(needed.value(Some(&text(""))), Err(InvalidInput::Missing));
}

#[test]
fn every_value_at_fault_is_named() {
    let needed = TemplateInput {
        required: true,
        ..input(InputKind::Number)
    };
    let declared = [needed];
    let given = Inputs::from([("y".to_owned(), InputValue::Switch(true))]);
    let error = check_inputs(&declared, &given).unwrap_err();
    assert_eq!(fields(&error), ["inputs.x", "inputs.y"]);
}

#[test]
fn a_value_travels_as_what_it_is_and_shows_by_no_accident() {
    let json = r#"{"a":true,"b":7,"c":"x","d":{"kept":null}}"#;
    let inputs: Inputs = serde_json::from_str(json).unwrap();
    assert_eq!(inputs["a"], InputValue::Switch(true));
    assert_eq!(inputs["b"], InputValue::Number(7));
    assert_eq!(inputs["d"], InputValue::HIDDEN);
    assert_eq!(serde_json::to_string(&inputs).unwrap(), json);
    let secret = InputValue::Kept(Kept {
        kept: Some("hunter2".to_owned()),
    });
    for value in [secret, text("hunter2")] {
        assert!(!format!("{value:?}").contains("hunter2"));
    }
    for odd in [
        r#"{"a":1.5}"#,
        r#"{"a":[1]}"#,
        r#"{"a":{"kept":null,"x":1}}"#,
    ] {
        assert!(serde_json::from_str::<Inputs>(odd).is_err(), "{odd}");
    }
}

#[test]
fn a_change_leaves_what_it_does_not_name() {
    let now = TemplateView {
        id: TemplateId::from_parts(1, [1; 10]),
        name: TemplateName::new("web").unwrap(),
        tenant_id: None,
        owner: UserName::new("ada").unwrap(),
        description: "a server".to_owned(),
        image: Some(ImageName::new("demo").unwrap()),
        flavor: Some(FlavorName::new("tiny").unwrap()),
        user_data: None,
        inputs: vec![input(InputKind::Text)],
        generation: 1,
        created_at: Timestamp::from_ms(0),
    };
    let change = ChangeTemplate {
        image: Some(String::new()),
        description: Some("better".to_owned()),
        ..ChangeTemplate::default()
    };
    let checked = change.over(&now).check().unwrap();
    assert_eq!(checked.image, None);
    assert_eq!(checked.flavor, now.flavor);
    assert_eq!(checked.description, "better");
    assert_eq!(checked.inputs, now.inputs);
    assert!(checked.public);
}
