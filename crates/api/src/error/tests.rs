#[test]
fn every_code_is_documented() {
    let codes = include_str!("kinds.rs")
        .split("fn kind(")
        .nth(1)
        .and_then(|rest| rest.split("\n    }\n").next())
        .unwrap();
    let words = codes
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
    let documented = include_str!("../../../../docs/api.md");
    let missing: Vec<_> = words
        .filter(|word| !documented.contains(&format!("`{word}`")))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}
