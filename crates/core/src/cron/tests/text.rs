//! What is read, what is refused, and how it is put in words.

use proptest::prelude::*;

use super::*;

#[test]
fn five_fields_begin_with_the_minute_and_six_with_the_second() {
    let after = at("2026-01-05T12:00:00");
    assert_eq!(schedule("5 13 * * *", "").next_after(after), Some(at("2026-01-05T13:05:00")));
    assert_eq!(schedule("30 5 13 * * *", "").next_after(after), Some(at("2026-01-05T13:05:30")));
    assert_eq!(schedule("* 5 * * * *", "").next_after(after), Some(at("2026-01-05T12:05:00")));
    assert_eq!(schedule("* 5 * * * *", "").next_after(at("2026-01-05T12:05:59")), Some(at("2026-01-05T13:05:00")));
}

#[test]
fn same_thing_may_be_written_in_many_ways() {
    let same = [
        ["0 0 * * 1-5", "0 0 * * MON-FRI", "0 0 * * mon,Tue,WED,thu,friday", "  0   0 ? * 1,2,3-5 "],
        ["0 0 * * 0", "0 0 * * 7", "0 0 * * SUN", "0 0 * * sunday"],
        ["0 0 * * 5,6,0", "0 0 * * FRI-SUN", "0 0 * * 5-7", "00 00 * * 05-07"],
        ["0 0 1 1-3 *", "0 0 1 JAN-MAR *", "0 0 1 january,february,MARCH *", "0 0 0 1 1-3 ?"],
        ["*/15 * * * *", "0/15 * * * *", "0-59/15 * * * *", "0,15,30,45 * * * *"],
        ["20/15 * * * *", "20-59/15 * * * *", "20,35,50 * * * *", "0 20,35-49/15,50 * * * *"],
        ["@hourly", "0 * * * *", "0 0 * * * *", "@HOURLY"],
        ["@daily", "@midnight", "0 0 * * *", "TZ=UTC @daily"],
        ["@weekly", "0 0 * * 0", "0 0 ? * SUN", "CRON_TZ=UTC 0 0 * * SUN"],
        ["@monthly", "0 0 1 * *", "0 0 1 * ?", "0 0 0 1 * ?"],
        ["@yearly", "@annually", "0 0 1 1 *", "0 0 1 JAN *"],
        ["@every 90s", "@every 1m30s", "@every 1.5m", "@Every 90000ms"],
        ["@every 1w", "@every 7d", "@every 168h", "@every 6d24h"],
    ];
    for texts in same {
        let expected: Vec<Time> = schedule(texts[0], "").upcoming(at("2026-01-05T12:00:00")).take(50).collect();
        for text in texts {
            let ticks: Vec<Time> = schedule(text, "").upcoming(at("2026-01-05T12:00:00")).take(50).collect();
            assert_eq!(ticks, expected, "{text}");
        }
    }
}

#[test]
fn zone_in_the_text_overrules_the_one_beside_it() {
    for text in ["TZ=Europe/Berlin 0 12 * * *", "CRON_TZ=Europe/Berlin  0 12 * * *"] {
        let schedule = schedule(text, "America/New_York");
        assert_eq!(schedule.timezone(), "Europe/Berlin");
        assert_eq!(schedule.next_after(at("2026-01-05T00:00:00")), Some(at("2026-01-05T11:00:00")));
    }
    assert_eq!(schedule("0 12 * * *", "").timezone(), "UTC");
    let tokyo = schedule("0 12 * * *", "Asia/Tokyo").next_after(at("2026-01-05T00:00:00"));
    assert_eq!(tokyo, Some(at("2026-01-05T03:00:00")));
}

#[test]
fn fraction_of_a_second_makes_no_tick_early_or_double() {
    let every_second = schedule("* * * * * *", "");
    assert_eq!(every_second.next_after(at("2026-01-05T12:00:00.001")), Some(at("2026-01-05T12:00:01")));
    assert_eq!(every_second.next_after(at("2026-01-05T12:00:00.999")), Some(at("2026-01-05T12:00:01")));
    assert_eq!(every_second.next_after(at("1969-12-31T23:59:58.500")), Some(at("1969-12-31T23:59:59")));
}

#[test]
fn every_counts_from_its_anchor_on_the_second() {
    let schedule = schedule("@every 90s", "Europe/Berlin");
    let submitted = at("2026-01-05T12:00:00.700");
    assert_eq!(schedule.next_after(submitted), Some(at("2026-01-05T12:01:30")));
    assert_eq!(schedule.next_after(at("2026-01-05T12:01:30")), Some(at("2026-01-05T12:03:00")));
    let first = |after: &str| schedule.first_after(submitted, at(after));
    assert_eq!(first("2026-01-05T12:04:29.999"), Some(at("2026-01-05T12:04:30")));
    assert_eq!(first("2026-01-05T12:04:30"), Some(at("2026-01-05T12:06:00")));
    assert_eq!(first("2025-01-01T00:00:00"), Some(at("2026-01-05T12:01:30")), "never before the submission");
    assert_eq!(schedule.first_after(submitted, Time::MAX), None);
}

#[test]
fn schedules_end_with_the_years_and_do_not_overflow() {
    for text in ["* * * * *", "30 2 * * *", "@every 1s"] {
        for time in [Time::MAX, Time::from_millis(i64::MIN), Time::from_seconds(253_402_207_200)] {
            let _tick: Option<Time> = schedule(text, "Europe/Berlin").next_after(time);
        }
    }
    assert_eq!(schedule("30 2 * * *", "").next_after(Time::MAX), None);
}

#[test]
fn what_is_wrong_is_named_with_its_field_and_remedy() {
    let wrong = [
        ("", "", "it is empty; write five fields, such as 0 2 * * *"),
        (
            "* * * *",
            "",
            "4 fields are not a schedule; five are needed (minute, hour, day of month, month, weekday), or six with the \
             seconds first",
        ),
        ("* * * * * * *", "", "seven fields are too many; leave out the year: it cannot be restricted"),
        ("60 * * * *", "", "minute: there is no minute 60; use 0 to 59"),
        ("60 * * * * *", "", "second: there is no second 60; use 0 to 59"),
        ("* 24 * * *", "", "hour: there is no hour 24; use 0 to 23"),
        ("* * 0 * *", "", "day of month: there is no day of month 0; use 1 to 31, L, LW or 15W"),
        ("* * * 13 *", "", "month: there is no month 13; use 1 to 12 or JAN to DEC"),
        ("* * * * 8", "", "weekday: there is no weekday 8; use 0 to 7 (0 and 7 are Sunday), SUN to SAT, MON#2 or FRIL"),
        ("noon * * * *", "", "minute: \"noon\" is not a value; use 0 to 59"),
        ("1,,2 * * * *", "", "minute: a value is missing; use 0 to 59"),
        ("1- * * * *", "", "minute: a value is missing; use 0 to 59"),
        ("5-1 * * * *", "", "minute: 5-1 goes backwards; write 5-59,0-1"),
        ("* * * * FRI-MON", "", "weekday: FRI-MON goes backwards; write 5-6,0-1"),
        ("*/0 * * * *", "", "minute: the step of */0 is zero; use 1 or more"),
        ("*/x * * * *", "", "minute: \"x\" is not a step; write a number after the /"),
        (
            "*/90 * * * *",
            "",
            "minute: the step of */90 is longer than the field; for a pace that knows no field use @every, such as \
             @every 90m",
        ),
        ("0 0 30 2 *", "", "it would never come due; check the day against the month: there is no 30 February"),
        ("0 0 31 2,4,6 *", "", "it would never come due; check the day against the month: there is no 30 February"),
        // The 1st and the 31st are never a second Monday, and both must fit, for the first field has a star.
        ("0 0 */30 * MON#2", "", "it would never come due; check the day against the month: there is no 30 February"),
        ("0 0 L,LW * *", "", "day of month: L and LW cannot be together; make two policies of it"),
        ("* * * * MON#6", "", "weekday: there is no MON#6 in a month; use #1 to #5"),
        ("@every 500ms", "", "@every: 500ms is too short; a policy runs once a second at the most: 1s"),
        ("@every 0s", "", "@every: 0s is too short; a policy runs once a second at the most: 1s"),
        ("@every 1.5s", "", "@every: 1.5s is not a whole number of seconds; leave out the fraction"),
        ("@every", "", "@every: \"\" is not a pause; write numbers with units s, m, h, d or w: 90s, 1h30m"),
        ("@every 90", "", "@every: \"90\" is not a pause; write numbers with units s, m, h, d or w: 90s, 1h30m"),
        ("@every 99999d", "", "@every: 99999d is too long; use a schedule with a date, or a delay"),
        (
            "@reboot",
            "",
            "@reboot is not a schedule; use @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually or \
             @every 90s",
        ),
        (
            "@daily",
            "Mars/Base",
            "time zone: there is no time zone \"Mars/Base\"; use an IANA name such as Europe/Berlin, or UTC",
        ),
        (
            "TZ=Nowhere @daily",
            "",
            "time zone: there is no time zone \"Nowhere\"; use an IANA name such as Europe/Berlin, or UTC",
        ),
        ("TZ=UTC", "", "it is empty; write five fields, such as 0 2 * * *"),
    ];
    for (text, zone, expected) in wrong {
        let error = Schedule::parse(text, zone).expect_err(text);
        assert_eq!(error.to_string(), expected, "{text}");
    }
    let long = format!("{} * * * *", "0,".repeat(300));
    assert!(Schedule::parse(&long, "").unwrap_err().problem.contains("too many"));
}

#[test]
fn meaning_is_told_as_a_sentence() {
    let sentences = [
        ("* * * * *", "Every minute, in UTC."),
        ("* * * * * *", "Every second, in UTC."),
        ("* 5 * * * *", "Every second, at minute 5 of every hour, in UTC."),
        ("*/15 * * * * *", "Every 15 seconds, in UTC."),
        ("0 */5 * * * *", "Every 5 minutes, in UTC."),
        ("0 * * * *", "Every hour, in UTC."),
        ("5 * * * *", "At minute 5 of every hour, in UTC."),
        ("5,35 * * * *", "At minutes 5 and 35 of every hour, in UTC."),
        ("0 */2 * * *", "Every 2 hours from midnight, in UTC."),
        ("30 */2 * * *", "At minute 30, every 2 hours from midnight, in UTC."),
        ("*/10 9-17 * * MON-FRI", "Every 10 minutes, in hours 9 to 17, on Monday to Friday, in UTC."),
        ("*/20 0 8 * * *", "Every 20 seconds, at minute 0, in hour 8, in UTC."),
        ("30 2 * * *", "At 02:30 every day, in UTC."),
        ("0 30 2 * * *", "At 02:30 every day, in UTC."),
        ("15 30 2 * * *", "At 02:30:15 every day, in UTC."),
        ("0 6,18 * * SAT,SUN", "At 06:00 and 18:00 on Saturday and Sunday, in UTC."),
        ("0 0 1,15 * *", "At 00:00 on days 1 and 15 of the month, in UTC."),
        ("0 0 1 JAN,JUN-AUG *", "At 00:00 on day 1 of the month in January and June to August, in UTC."),
        ("0 0 13 * FRI", "At 00:00 on day 13 of the month or on Friday, in UTC."),
        ("0 0 */2 * FRI", "At 00:00 on days 1, 3, 5 and so on of the month if it is Friday, in UTC."),
        ("0 0 3/10 * *", "At 00:00 on days 3, 13 and 23 of the month, in UTC."),
        ("0 0 1 * 0-6", "At 00:00 every day, in UTC."),
        ("0 9 L,1 * *", "At 09:00 on day 1 of the month and the last day of the month, in UTC."),
        ("0 9 LW * *", "At 09:00 on the last working day (Monday to Friday) of the month, in UTC."),
        ("0 9 15W * *", "At 09:00 on the working day (Monday to Friday) nearest to day 15 of the month, in UTC."),
        ("0 9 * * MON#2,FRIL", "At 09:00 on the second Monday of the month and the last Friday of the month, in UTC."),
        ("@every 90s", "Every 1 minute 30 seconds, counted from the submission."),
        ("@every 25h", "Every 1 day 1 hour, counted from the submission."),
    ];
    for (text, sentence) in sentences {
        assert_eq!(schedule(text, "").describe(), sentence, "{text}");
    }
    assert_eq!(schedule("@daily", "Asia/Tokyo").describe(), "At 00:00 every day, in Asia/Tokyo.");
}

#[test]
fn what_may_not_be_meant_is_warned_of() {
    let clock = "when clocks go forward in Europe/Berlin there is no 02:30: it runs at the first instant after the gap";
    let warned: [(&str, &[&str]); 11] = [
        ("0 4 * * *", &[]),
        ("30 2 * * *", &[clock]),
        ("30 2 * * MON", &[]), // clocks change on Sundays
        ("*/5 2 * * *", &[]),
        ("0 0 13 * FRI", &["day of month and weekday are both set: it runs on days that fit either of them"]),
        ("0 0 */2 * FRI", &[]),
        ("0 0 31 * *", &["months that do not have such a day are passed over; L is the last day of each month"]),
        ("0 0 28,31 * *", &[]),
        ("* 5 * * * *", &["the first of six fields is the second: it runs 60 times in each minute that fits"]),
        (
            "*/7 * * * *",
            &["a step of 7 minutes begins anew with each hour: there the pause is 4 minutes; @every 7m keeps the pace"],
        ),
        (
            "0 */9 * * *",
            &["a step of 9 hours begins anew with each day: there the pause is 6 hours; @every 9h keeps the pace"],
        ),
    ];
    for (text, warnings) in warned {
        assert_eq!(schedule(text, "Europe/Berlin").warnings(), warnings, "{text}");
    }
    assert!(schedule("@every 7m", "").warnings().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if soak() { 100_000 } else { 1_000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_text_is_read_or_refused(text in "(@every |TZ=UTC )?[-0-9*/,?LW#SUNMONJAN@ .hms]{0,30}", after in any::<i64>()) {
        if let Ok(schedule) = Schedule::parse(&text, "Europe/Berlin") {
            let after = Time::from_millis(after >> 10);
            if let Some(next) = schedule.next_after(after) {
                prop_assert!(next > after);
            }
            prop_assert!(schedule.describe().ends_with('.'));
            schedule.warnings();
        }
    }
}
