//! `/settings/history` and `/settings/rollback` (ours): the last changes, and the way
//! back.

use super::{changed, then};
use crate::app::App;
use crate::http::{Answer, Reply, Request};
use api_types::{HistoryEntry, HistoryOrigin};
use settings_store::{Entry, Origin};

/// `GET /settings/history`.
pub async fn list(app: &App) -> Reply {
    let store = app.store.lock().await;
    let entries: Vec<HistoryEntry> = store.history().entries().map(entry).collect();
    Ok(Answer::json(&entries))
}

fn entry(entry: &Entry) -> HistoryEntry {
    HistoryEntry {
        id: entry.id,
        time: entry.time.map(rfc3339),
        origin: match entry.origin {
            Origin::UserData => HistoryOrigin::UserData,
            Origin::Api => HistoryOrigin::Api,
            Origin::Rollback => HistoryOrigin::Rollback,
        },
        keys: entry.keys.clone(),
    }
}

/// `POST /settings/rollback?to=ID`.
pub async fn roll_back(app: &App, request: &Request) -> Reply {
    let then = then(request)?;
    let id = match request.parameter("to") {
        None => return Err(Answer::text(400, "parameter to is missing")),
        Some(id) => id
            .parse()
            .map_err(|_| Answer::text(400, format!("{id:?} is not the number of a change")))?,
    };
    Ok(changed(
        app.change(then, move |store| store.roll_back(id)).await?,
    ))
}

/// A moment in UTC, given in seconds since 1970, as RFC 3339 writes it.
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March end with the leap day, and 400 of them have always
    // the same number of days. Day 0 of the first era is 0000-03-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_577_836_800, "2020-01-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), expected);
        }
    }
}
