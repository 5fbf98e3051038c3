//! Tries again what may pass, after as long a wait as the server asks for.

use std::time::Duration;

use ureq::http::{HeaderMap, StatusCode, header};

use super::progress::Event;
use crate::error::{Error, Result};

/// Tries in a row that bring nothing before one gives up.
const ATTEMPTS: u32 = 6;

/// Before the second try; doubled before each further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// No server is waited for longer at a time. The hub counts requests in windows of this length.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// A wait that people should be told of.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// Why something did not come, or not all of it.
pub(super) enum Failure {
    /// What may pass: a connection that broke, a server too busy.
    Passing(Problem),
    /// What will not.
    Final(Error),
}

/// What may pass.
pub(super) struct Problem {
    text: String,
    /// What the server asks for.
    wait: Duration,
    /// Whether some of it came.
    progress: bool,
}

impl Failure {
    pub fn passing(problem: impl ToString) -> Self {
        Failure::Passing(Problem { text: problem.to_string(), wait: Duration::ZERO, progress: false })
    }

    /// A failed request, where it is known whether something came.
    pub fn after(self, progress: bool) -> Self {
        match self {
            Failure::Passing(problem) => Failure::Passing(Problem { progress, ..problem }),
            Failure::Final(error) => Failure::Final(error),
        }
    }

    /// The failure of an answer whose status may pass; `None` for another.
    pub fn of_answer(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        let passes = status.is_server_error()
            || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
        passes.then(|| {
            let text = format!("the server answered {status}");
            Failure::Passing(Problem { text, wait: asked_wait(headers), progress: false })
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Final(error)
    }
}

/// The outcome of `task`, which is done until it succeeds, fails for good, or has brought nothing too many times in a
/// row: `given_up` makes an error of what was the matter then.
pub(super) fn persist<T>(
    watch: &mut dyn FnMut(Event<'_>),
    mut task: impl FnMut(&mut dyn FnMut(Event<'_>)) -> std::result::Result<T, Failure>,
    given_up: impl FnOnce(String) -> Error,
) -> Result<T> {
    let mut attempt = 0;
    loop {
        let problem = match task(watch) {
            Ok(outcome) => return Ok(outcome),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(problem)) => problem,
        };
        attempt = if problem.progress { 1 } else { attempt + 1 };
        let Some(wait) = pause(attempt, problem.wait) else {
            return Err(given_up(format!("{}, {ATTEMPTS} times in a row", problem.text)));
        };
        if wait >= LONG_WAIT {
            watch(Event::Waiting { problem: &problem.text, wait });
        }
        std::thread::sleep(wait);
    }
}

/// How long to wait after so many tries in a row that brought nothing, of a server that asks for a wait of `asked`; `None`
/// where it is time to give up.
fn pause(attempt: u32, asked: Duration) -> Option<Duration> {
    (attempt < ATTEMPTS).then(|| asked.min(LONGEST_WAIT).max(FIRST_WAIT * 2u32.pow(attempt - 1)))
}

/// How long a server wants to be left alone: `Retry-After` in seconds, or `RateLimit: "api";r=0;t=55`, as the hub has
/// it: nothing remains, and there will be more in 55 seconds.
fn asked_wait(headers: &HeaderMap) -> Duration {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let retry_after = text(header::RETRY_AFTER.as_str()).and_then(|value| value.trim().parse().ok());
    let rate_limit = || {
        let parameter = |name: &str| {
            let parts = text("ratelimit")?.split([';', ',']).map(str::trim);
            parts.filter_map(|part| part.split_once('=')).find(|(key, _)| *key == name)?.1.parse::<u64>().ok()
        };
        parameter("t").filter(|_| parameter("r") == Some(0))
    };
    Duration::from_secs(retry_after.or_else(rate_limit).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_how_long_to_wait() {
        for (name, value, seconds) in [
            ("retry-after", "7", 7),
            ("retry-after", " 7 ", 7),
            ("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT", 0),
            ("retry-after", "-7", 0),
            ("ratelimit", r#""api";r=0;t=55"#, 55),
            ("ratelimit", r#""resolvers"; r=0; t=55"#, 55),
            ("ratelimit", r#""api";r=12;t=55"#, 0),
            ("ratelimit", "t", 0),
            ("server", "7", 0),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(asked_wait(&headers).as_secs(), seconds, "{name}: {value}");
        }
    }

    #[test]
    fn waits_grow_and_end() {
        let pauses = |asked| {
            let asked = Duration::from_secs(asked);
            (1..).map_while(|attempt| pause(attempt, asked)).map(|wait| wait.as_millis()).collect::<Vec<_>>()
        };
        assert_eq!(pauses(0), [500, 1000, 2000, 4000, 8000]);
        assert_eq!(pauses(3), [3000, 3000, 3000, 4000, 8000]);
        assert_eq!(pauses(u64::MAX), [300_000; 5]);
    }

    #[test]
    fn what_does_not_pass_is_given_up() {
        let mut tries = 0;
        let task = |_: &mut dyn FnMut(Event<'_>)| {
            tries += 1;
            Err(Failure::Final(Error::model("gone")))
        };
        let outcome: Result<()> = persist(&mut |_| {}, task, |_| unreachable!());
        assert_eq!((outcome.unwrap_err().to_string(), tries), ("gone".to_owned(), 1));
    }
}
