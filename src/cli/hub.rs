//! Models from the hub, with their progress on standard error: a bar on a terminal, lines elsewhere.

use std::path::PathBuf;

use clap::Args;
use indicatif::{HumanBytes, ProgressBar};
use serde::{Deserialize, Serialize};

use super::say::{note, shows_bars};
use super::terminal::set_style;
use crate::error::Result;
use crate::hub::Settings;
use crate::hub::download::{Event, Need, Progress, obtain};

/// Options of every command that takes a hub id.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct HubArgs {
    /// Download nothing: a hub id has to be in the local cache. HF_HUB_OFFLINE=1 does the same.
    #[arg(long, help_heading = "Model")]
    offline: bool,
}

impl HubArgs {
    /// The directory of `model`, in which all is that is needed.
    pub(super) fn obtain(&self, model: &str, revision: Option<&str>, need: Need) -> Result<PathBuf> {
        let mut settings = Settings::from_env();
        settings.offline |= self.offline;
        let mut downloads = Downloads::default();
        let obtained = obtain(model, revision, need, &settings, &mut |event| downloads.show(event));
        if let Some(bar) = downloads.bar {
            bar.finish_and_clear();
        }
        obtained
    }
}

/// What is shown.
#[derive(Default)]
struct Downloads {
    file: String,
    bar: Option<ProgressBar>,
}

impl Downloads {
    fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Received(progress) => self.advance(&progress),
            Event::Waiting { problem, wait } => {
                self.say(&format!("{problem}; next try in {} s", wait.as_secs()))
            }
            Event::Locked(file) => self.say(&format!("waiting for another process that downloads {file}")),
        }
    }

    fn advance(&mut self, progress: &Progress<'_>) {
        if self.file != progress.file {
            self.begin(progress);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(progress.received);
        }
    }

    /// A line above the bar, if there is one.
    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(line)),
            None => note(line),
        }
    }

    fn begin(&mut self, progress: &Progress<'_>) {
        self.file = progress.file.to_owned();
        let from = match progress.received {
            0 => String::new(),
            received => format!(", of which {} are there", HumanBytes(received)),
        };
        let line = format!("downloading {}: {}{from}", self.file, HumanBytes(progress.size));
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        note(&line);
        if shows_bars() {
            let bar = ProgressBar::new(progress.size);
            set_style(&bar, "{bar:24} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}");
            self.bar = Some(bar);
        }
    }
}
