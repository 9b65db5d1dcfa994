//! Templates and what they give, and what is done about the file that is there.

use super::*;

fn values() -> Values {
    Values {
        hostname: "alder.example.org".to_owned(),
        node: NodeName::parse("alder").unwrap(),
        role: RoleName::parse("web").unwrap(),
        active: NodeName::parse("birch").unwrap(),
        is_active: false,
        vars: BTreeMap::from([
            ("site".to_owned(), "north".to_owned()),
            ("PORT_2".to_owned(), "8080".to_owned()),
        ]),
    }
}

fn told(made: Result<String, Fault>) -> String {
    made.unwrap_or_else(|fault| format!("could not {fault}"))
}

fn fills(template: &str, expected: &str) {
    assert_eq!(told(percent(template, &values())), expected, "{template}");
}

#[test]
fn words_between_percent_signs() {
    fills("", "");
    fills("no word\n", "no word\n");
    fills(
        "%HOSTNAME% %NODE% %ROLE% %ACTIVE%",
        "alder.example.org alder web birch",
    );
    fills("%SITE%:%PORT_2%", "north:8080");
    fills("é%NODE%é", "éalderé");
    // Percent signs that are meant.
    for as_it_is in [
        "100%",
        "%",
        "%%",
        "50%, 60% and 70%",
        "%h %l %u %t \"%r\" %>s %b",
        "date +%Y%m%d-%H%M%S",
        "caf%C3%A9%20%E2%82%AC",
        "ExecStart=/bin/x %%i %i",
        "%node%",
        "%NO DE%",
        "%NODE",
        "%_ABC%",
        "%{NODE}e",
    ] {
        fills(as_it_is, as_it_is);
    }
    fills("%%NODE%%", "%NODE%");
    fills("%%PATH%%;%NODE%", "%PATH%;alder");
    fills("100%%NODE%", "100%alder");
    fills("%NODE%%ROLE%", "alderweb");
}

#[test]
fn words_that_are_not_known() {
    let error = "could not fill in %NOED% (line 2): no such word; the words are HOSTNAME, NODE, ROLE, ACTIVE, PORT_2, SITE, or \
                 write %%NOED%% for the text itself";
    fills("a\nb %NOED%", error);
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    assert_eq!(percent(&long, &values()), Err(Fault::TooLong));
    assert_eq!(
        percent(&"%NODE%".repeat(TEXT_BYTES_MAX / 5 + 1), &values()),
        Err(Fault::TooLong)
    );
}

fn follows(template: &str, expected: &str) {
    assert_eq!(
        told(jinja("files/t", template, &values())),
        expected,
        "{template}"
    );
}

#[test]
fn jinja_templates() {
    follows(
        "{{ node }} {{ hostname }} {{ role }}\n",
        "alder alder.example.org web\n",
    );
    follows(
        "{% if is_active %}a{% else %}from {{ active }}{% endif %}",
        "from birch",
    );
    follows("{{ vars.site|upper }} {{ vars['PORT_2'] }}", "NORTH 8080");
    follows("{% for i in range(3) %}{{ i }}{% endfor %}", "012");
    follows("<{{ '&' }}>", "<&>");
    follows("a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc\n");
    follows(
        "{{ nodee }}",
        "could not follow the template: undefined value (in files/t:1)",
    );
    follows(
        "\n{{ vars.sit }}",
        "could not follow the template: undefined value (in files/t:2)",
    );
}

#[test]
fn jinja_templates_that_ask_for_more() {
    for template in [
        "{% include '/etc/passwd' %}",
        "{% include 'files/u' %}",
        "{% extends '/etc/passwd' %}",
        "{% import '/etc/passwd' as x %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% if %}",
    ] {
        let told = told(jinja("files/t", template, &values()));
        assert!(
            told.starts_with("could not follow the template: "),
            "{template}: {told}"
        );
    }
    let long = "{% for i in range(90000) %}0123456789abcdef{% endfor %}";
    assert_eq!(jinja("t", long, &values()), Err(Fault::TooLong));
}

/// `present` and `written` are texts that stand for hashes; the right one is "new".
fn judges(present: &str, written: Option<&str>, writing: Option<&str>, expected: Verdict) {
    let facts = Facts {
        hash: present.to_owned(),
        mode: 0o640,
        uid: 0,
        gid: 7,
    };
    let memory = Memory {
        written: written.map(str::to_owned),
        writing: writing.map(str::to_owned),
    };
    let verdict = judge(
        "new",
        &Present::File(facts),
        &memory,
        Some(0o640),
        Some((0, 7)),
    );
    assert_eq!(verdict, expected, "{present} {written:?} {writing:?}");
}

#[test]
fn what_is_done_about_a_file() {
    judges("new", None, None, Verdict::Fresh);
    judges("new", Some("old"), None, Verdict::Fresh);
    judges("old", Some("old"), None, Verdict::Write);
    judges("old", Some("old"), Some("new"), Verdict::Write);
    // Cut between the writing and the note of it, with another template since.
    judges("newer", Some("old"), Some("newer"), Verdict::Write);
    judges("mine", Some("old"), None, Verdict::Edited);
    judges("mine", None, None, Verdict::Foreign);
    judges("mine", None, Some("new"), Verdict::Foreign);
    let facts = Facts {
        hash: "new".to_owned(),
        mode: 0o644,
        uid: 0,
        gid: 0,
    };
    let present = Present::File(facts);
    let none = Memory::default();
    assert_eq!(judge("new", &present, &none, None, None), Verdict::Fresh);
    assert_eq!(
        judge("new", &present, &none, Some(0o600), None),
        Verdict::Dress
    );
    assert_eq!(
        judge("new", &present, &none, None, Some((0, 1))),
        Verdict::Dress
    );
    assert_eq!(
        judge("new", &Present::Nothing, &none, None, None),
        Verdict::Write
    );
    let link = Present::Other("a symbolic link".to_owned());
    assert_eq!(judge("new", &link, &none, None, None), Verdict::NoFile);
}
