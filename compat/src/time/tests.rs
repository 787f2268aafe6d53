use proptest::prelude::*;

use super::*;

const T: i64 = 1_700_000_000;

fn parse(text: &str) -> Option<i64> {
    Time::parse(text).map(Time::epoch)
}

fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("zone")
}

fn argument(text: &str) -> Result<i64, TimeError> {
    parse_time_argument_in(text, Time(T), &berlin()).map(Time::epoch)
}

#[test]
fn all_forms_of_names() {
    for text in ["20231114T221320Z", "20231114t221320z", "2023-11-14T22:13:20Z", "2023-11-14t22:13:20z", "1700000000"] {
        assert_eq!(parse(text), Some(T), "{text}");
    }
    for text in ["2023-11-15T00:13:20+02:00", "2023-11-14T16:43:20-05:30", "2023-11-15T00_13_20+02_00"] {
        assert_eq!(parse(text), Some(T), "{text}");
    }
    for text in ["2023-11-14T22.13.20Z", "2023-11-14T22é13é20Z", "2023-11-14T22013020Z"] {
        assert_eq!(parse(text), Some(T), "{text}");
    }
    assert_eq!(Time::parse_base36("s44we8").map(Time::epoch), Some(T));
}

#[test]
fn what_is_no_time_of_a_name() {
    let bad = [
        "",
        "0",
        "now",
        "3D",
        "20231114",
        "20231114T221320",
        "20231314T221320Z",
        "20230230T000000Z",
        "19001231T235959Z",
        "21000101T000000Z",
        "20231114T246060Z",
        "2023-11-14T22:13.20Z",
        "2023-11-14T22-13-20Z",
        "2023-11-14T22:13:20",
        "2023-11-14T22:13:20+02_00",
        "2023-11-14T22:13:20+24:00",
        "99999999999999999999",
        "-5",
        "+5",
        "19700101T000000Z",
        "é",
    ];
    for text in bad {
        let found = parse(text);
        // Eight digits are seconds, as stock takes them.
        assert_eq!(found, (text == "20231114").then_some(20_231_114), "{text}");
    }
    for text in ["", "S44WE8", "s44we8 ", "zzzzzzzzzzzzzzzz", "+s", "0", "-1"] {
        assert_eq!(Time::parse_base36(text), None, "{text}");
    }
}

#[test]
fn bounds_are_years() {
    assert_eq!(Time::MIN.to_string(), "19010101T000000Z");
    assert_eq!(Time::MAX.to_string(), "20991231T235959Z");
    assert_eq!(Time::new(Time::MAX.0 + 1), None);
    assert_eq!(Time::new(i64::MIN), None);
}

#[test]
fn for_people() {
    assert_eq!(Time(T).human(&TimeZone::UTC), "Tue Nov 14 22:13:20 2023");
    assert_eq!(Time(T).human(&berlin()), "Tue Nov 14 23:13:20 2023");
    assert_eq!(Time(1_699_000_000 - 86_400 * 2).human(&TimeZone::UTC), "Wed Nov  1 08:26:40 2023");
}

#[test]
fn arguments() {
    let cases = [
        ("now", T),
        ("0", 0),
        ("1234567890", 1_234_567_890),
        ("2023-11-14T22:13:20Z", T),
        ("2023-11-14T23:13:20+01:00", T),
        ("2023-11-14T23:13:20", T),
        // Summer: the offset of winter all the same.
        ("2023-07-14T12:00:00", 1_689_332_400),
        ("20231114T221320Z", T),
        ("30s", T - 30),
        ("3D2h", T - 3 * 86_400 - 7200),
        ("1Y1M1W1D1h1m1s", T - 403 * 86_400 - 3661),
        ("2023-07-14", 1_689_285_600),
        ("2023/7/14", 1_689_285_600),
        ("07-14-2023", 1_689_285_600),
        ("7/14/2023", 1_689_285_600),
        ("20230714Z", 1_689_292_800),
    ];
    for (text, wanted) in cases {
        assert_eq!(argument(text), Ok(wanted), "{text}");
    }
}

#[test]
fn bad_arguments() {
    for text in ["", "yesterday", "3", "3d", "D", "3D2", "2023-11", "2023-111-1", "1/2/3/4", "2023-11-14T", "+1-2-2023", "é"] {
        let found = argument(text);
        if text == "3" {
            assert_eq!(found, Ok(3));
        } else {
            assert_eq!(found, Err(TimeError::Unknown(text.to_owned())), "{text}");
        }
    }
    for text in ["99999999999999999999", "9223372036854775807Y", "400Y", "2023-13-01", "20231301Z", "2200-01-01"] {
        assert_eq!(argument(text), Err(TimeError::OutOfRange(text.to_owned())), "{text}");
    }
}

proptest! {
    #[test]
    fn written_times_read_back(epoch in Time::MIN.0..=Time::MAX.0) {
        prop_assume!(epoch != 0);
        prop_assert_eq!(parse(&Time(epoch).to_string()), Some(epoch));
    }

    #[test]
    fn any_text_is_survived(text in "\\PC{0,30}") {
        let _ = Time::scan(&text);
        let _ = argument(&text);
    }

    #[test]
    fn any_near_miss_is_survived(text in "[0-9TZtz+:é-]{0,26}") {
        if let Some((time, rest)) = Time::scan(&text) {
            prop_assert!(time != Time(0) && text.ends_with(rest));
        }
        let _ = argument(&text);
    }
}
