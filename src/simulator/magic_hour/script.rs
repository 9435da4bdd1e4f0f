//! What a job of the simulator is going to do: a [`Plan`].

use std::time::Duration;

use super::super::shelf::File;

/// What a prompt makes the simulator do, for people.
pub const PROMPTS: &str = "\
The first of these words in a prompt decides what the job does:
  fail     ends in an error
  cancel   is called off; no webhook tells (as with Magic Hour)
  quick    completes without having been announced as started
  several  completes with three files
  hang     renders until it is deleted
Any other prompt: it starts, and completes with one file.";

/// The calls that create a job, the project kind that each makes, and what comes out.
pub const TOOLS: [(&str, &str, Resource); 6] = [
    ("ai-image-generator", "AI_IMAGE", Resource::Image),
    ("ai-headshot-generator", "AI_HEADSHOT", Resource::Image),
    ("text-to-video", "TEXT_TO_VIDEO", Resource::Video),
    ("image-to-video", "IMAGE_TO_VIDEO", Resource::Video),
    ("face-swap", "FACE_SWAP", Resource::Video),
    ("ai-voice-generator", "VOICE_GENERATOR", Resource::Audio),
];

/// What a job makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A video.
    Video,
    /// Images.
    Image,
    /// Sound.
    Audio,
}

impl Resource {
    /// The word in types of events and in paths.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Image => "image",
            Self::Audio => "audio",
        }
    }
}

/// A job's life, decided beforehand.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it makes.
    pub resource: Resource,
    /// The project kind, such as `AI_IMAGE`.
    pub project: String,
    /// Its name.
    pub name: Option<String>,
    /// The wait before each step, on the simulator's clock.
    pub pace: Duration,
    /// Whether it is announced that rendering began; fast image modes may not.
    pub starts: bool,
    /// How it ends.
    pub end: End,
    /// What it costs; refunded if it fails.
    pub credits: u32,
}

/// How a job ends.
#[derive(Clone, Debug)]
pub enum End {
    /// `complete`, with these files: `*.completed`.
    Complete(Vec<File>),
    /// `error`: `*.errored`.
    Fail {
        /// The code, such as `no_source_face`.
        code: String,
        /// What is said about it.
        message: String,
    },
    /// `canceled`, and no webhook.
    Cancel,
    /// Never: it renders until it is deleted.
    Never,
}

impl Plan {
    /// A job that starts and ends so.
    #[must_use]
    pub fn new(resource: Resource, end: End) -> Self {
        let (_, project, _) = TOOLS.iter().find(|(_, _, made)| *made == resource).unwrap_or(&TOOLS[0]);
        Self { resource, project: (*project).to_owned(), name: None, pace: Duration::ZERO, starts: true, end, credits: 5 }
    }

    /// Images that complete with one file.
    #[must_use]
    pub fn image(name: &str, bytes: &'static [u8]) -> Self {
        Self::new(Resource::Image, End::Complete(vec![File::new(name, "image/png", bytes)]))
    }

    /// A video that completes with one file.
    #[must_use]
    pub fn video(name: &str, bytes: &'static [u8]) -> Self {
        Self::new(Resource::Video, End::Complete(vec![File::new(name, "video/mp4", bytes)]))
    }

    /// A video that ends in an error.
    #[must_use]
    pub fn fail(code: &str, message: &str) -> Self {
        Self::new(Resource::Video, End::Fail { code: code.to_owned(), message: message.to_owned() })
    }

    /// The same with this name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// The same with `pace` before each step.
    #[must_use]
    pub fn paced(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    /// The same, costing `credits`.
    #[must_use]
    pub fn costing(mut self, credits: u32) -> Self {
        self.credits = credits;
        self
    }

    /// The same without the announcement that rendering began.
    #[must_use]
    pub fn quick(mut self) -> Self {
        self.starts = false;
        self
    }

    /// The plan that `prompt` asks for, see [`PROMPTS`].
    #[must_use]
    pub fn of_prompt(resource: Resource, project: &str, prompt: &str, pace: Duration) -> Self {
        let lower = prompt.to_lowercase();
        let known = ["fail", "cancel", "quick", "several", "hang"];
        let chosen = lower.split(|c: char| !c.is_alphanumeric()).find(|word| known.contains(word));
        let (extension, content_type) = match resource {
            Resource::Video => ("mp4", "video/mp4"),
            Resource::Image => ("png", "image/png"),
            Resource::Audio => ("mp3", "audio/mpeg"),
        };
        let made = |count: u32| {
            let file = |n: u32| File::new(&format!("output-{n}.{extension}"), content_type, format!("{prompt} ({n})"));
            End::Complete((1..=count).map(file).collect())
        };
        let end = match chosen {
            Some("fail") => {
                End::Fail { code: "no_source_face".to_owned(), message: "Please use an image with a detectable face".to_owned() }
            }
            Some("cancel") => End::Cancel,
            Some("several") => made(3),
            Some("hang") => End::Never,
            _ => made(1),
        };
        Self { project: project.to_owned(), starts: chosen != Some("quick"), ..Self::new(resource, end).paced(pace) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_help_is_known() {
        let plan = |word: &str| Plan::of_prompt(Resource::Image, "AI_IMAGE", word, Duration::ZERO);
        let shape = |plan: &Plan| match &plan.end {
            End::Complete(files) => format!("{} {}", files.len(), plan.starts),
            End::Fail { .. } => "fail".to_owned(),
            End::Cancel => "cancel".to_owned(),
            End::Never => "never".to_owned(),
        };
        let usual = shape(&plan("a cat with glasses, not failing"));
        assert_eq!(usual, "1 true");
        for line in PROMPTS.lines().filter(|line| line.starts_with("  ")) {
            let word = line.split_whitespace().next().unwrap();
            assert_ne!(shape(&plan(word)), usual, "{word}");
        }
    }
}
