//! From the tables of the file, and the command line, to a [`Config`].

use super::items::{self, Builder};
use super::source::Source;
use super::{Config, ConfigError, Place, file};
use crate::nic::edge::{self, AGEING_SECS, DEFAULT_AGEING_SECS, QUEUES, shown};
use crate::nic::spec::*;
use chanio_model::edit::TunnelPortsError;
use chanio_model::eswitch::Mode;
use chanio_model::profile::{self, GENERIC, Profile};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use toml::Spanned;

/// Bytes of the longest file that is read: some 100,000 channels.
const MAX_FILE: u64 = 16 << 20;

/// What the command line says; it wins over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--queues`
    pub queues: Option<i64>,
    /// `--workers`
    pub workers: Option<i64>,
    /// `--representors`
    pub representors: Option<RepresentorMode>,
    /// `--uplink`
    pub uplink: Option<UplinkSpec>,
    /// `--nic-index`
    pub nic_index: Option<i64>,
    /// `--ageing`, seconds.
    pub ageing_secs: Option<i64>,
    /// `--profile`
    pub profile: Option<ProfileName>,
    /// `--offload`
    pub offload: bool,
    /// `--run-dir`
    pub run_dir: Option<PathBuf>,
    /// `--channels`: so many besides those of the file, called ch1, ch2 and so on.
    pub channels: u32,
    /// `--queues-per-channel`; otherwise 1.
    pub queues_per_channel: Option<i64>,
}

/// A profile, by its name.
#[derive(Clone, Copy, Debug)]
pub struct ProfileName(pub &'static Profile);

impl FromStr for ProfileName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        profile::by_name(text).map(Self).ok_or_else(|| {
            let names = profile::ALL.map(|profile| profile.name).join(", ");
            format!("profile: `{}` is none of {names}", shown(text))
        })
    }
}

impl FromStr for RepresentorMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "tap" => Ok(Self::Tap),
            "off" => Ok(Self::Off),
            _ => Err(format!(
                "representors: `{}` is none of auto, tap, off",
                shown(text)
            )),
        }
    }
}

impl Config {
    /// Reads a file, if there is one, and what the command line says.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(path: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            return Self::parse("", Path::new(""), overrides);
        };
        let failed = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let length = std::fs::metadata(path).map_err(failed)?.len();
        if length > MAX_FILE {
            let why = format!("{length} bytes, allowed are at most {MAX_FILE}");
            return Err(failed(std::io::Error::other(why)));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text, path, overrides)
    }

    /// The same from a file's text; `path` is for messages.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str, path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let source = Source { text, path };
        let file: file::File = toml::from_str(text).map_err(|e| source.syntax(e))?;
        let mut config = Config::empty(nic(&source, &file.nic, overrides)?);
        eswitch(&source, &file.eswitch, &mut config)?;
        let mut builder = Builder::new(config);
        for from in file.channel {
            let at = from.name.span();
            let added = builder.add_channel(items::channel(&source, from)?);
            added.map_err(|e| source.value("channel", &at, e))?;
        }
        generate_channels(&mut builder, overrides)?;
        for flow in file.flow {
            builder.add_flow(&source, flow)?;
        }
        for entry in file.fdb {
            builder.add_fdb(&source, entry)?;
        }
        for rate in file.rate {
            builder.add_rate(&source, rate)?;
        }
        Ok(builder.config)
    }
}

/// A number from the command line, or else from the file.
fn number<T>(
    source: &Source,
    field: &'static str,
    option: Option<i64>,
    from: &Option<Spanned<i64>>,
    range: RangeInclusive<T>,
) -> Result<Option<T>, ConfigError>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    match (option, from) {
        (Some(value), _) => edge::number(field, value, range)
            .map(Some)
            .map_err(on_command_line),
        (None, Some(value)) => edge::number(field, *value.get_ref(), range)
            .map(Some)
            .map_err(|e| source.value("nic", &value.span(), e)),
        (None, None) => Ok(None),
    }
}

fn on_command_line(what: impl Display) -> ConfigError {
    ConfigError::Value {
        place: Place::CommandLine,
        section: "nic",
        what: what.to_string(),
    }
}

/// A text from the command line, or else from the file.
fn text<T: FromStr>(
    source: &Source,
    option: Option<T>,
    from: &Option<Spanned<String>>,
) -> Result<Option<T>, ConfigError>
where
    T::Err: Display,
{
    match (option, from) {
        (Some(value), _) => Ok(Some(value)),
        (None, Some(text)) => {
            let value = text.get_ref().parse();
            value
                .map(Some)
                .map_err(|e| source.value("nic", &text.span(), e))
        }
        (None, None) => Ok(None),
    }
}

fn nic(source: &Source, from: &file::Nic, over: &Overrides) -> Result<NicConfig, ConfigError> {
    let workers = || {
        std::thread::available_parallelism()
            .map_or(1, |n| n.get())
            .min(64)
    };
    let queues = number(source, "queues", over.queues, &from.queues, 1..=1_000_000)?;
    let run_dir = text(source, over.run_dir.clone(), &from.run_dir)?;
    Ok(NicConfig {
        queues: queues.ok_or(ConfigError::Missing {
            field: "queues",
            option: "--queues N",
        })?,
        run_dir: run_dir.unwrap_or_else(default_run_dir),
        workers: number(source, "workers", over.workers, &from.workers, 1..=64)?
            .unwrap_or_else(workers),
        representors: text(source, over.representors, &from.representors)?
            .unwrap_or(RepresentorMode::Auto),
        uplink: text(source, over.uplink.clone(), &from.uplink)?.unwrap_or(UplinkSpec::None),
        nic_index: number(source, "nic_index", over.nic_index, &from.nic_index, 0..=99)?
            .unwrap_or(0),
        ageing_secs: number(
            source,
            "ageing_secs",
            over.ageing_secs,
            &from.ageing_secs,
            AGEING_SECS,
        )?
        .unwrap_or(DEFAULT_AGEING_SECS),
        profile: text(source, over.profile, &from.profile)?
            .unwrap_or(ProfileName(&GENERIC))
            .0,
        offload: over.offload || from.offload.unwrap_or(false),
    })
}

/// /run/chanio, or a place of the user's own for others than root.
fn default_run_dir() -> PathBuf {
    let of_user = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !nix::unistd::geteuid().is_root());
    of_user
        .map_or_else(|| "/run".into(), PathBuf::from)
        .join("chanio")
}

fn eswitch(source: &Source, from: &file::Eswitch, config: &mut Config) -> Result<(), ConfigError> {
    if let Some(mode) = &from.mode {
        let modes = [("legacy", Mode::Legacy), ("switchdev", Mode::Switchdev)];
        config.mode = source.one_of("eswitch", "mode", mode, modes)?;
    }
    if let Some(text) = &from.tunnel_ports {
        let ports = text.get_ref().parse();
        let wrong = |e| source.value("eswitch", &text.span(), format!("tunnel_ports: {e}"));
        config.tunnel_ports = ports.map_err(|e: TunnelPortsError| wrong(e))?;
    }
    if let Some(block) = &from.uplink_block {
        let number = edge::number("uplink_block", *block.get_ref(), 0..=u16::MAX);
        config.uplink_block = number.map_err(|e| source.value("eswitch", &block.span(), e))?;
    }
    if let Some(vepa) = &from.vepa {
        config.vepa = *vepa.get_ref();
        if config.vepa && config.mode != Mode::Legacy {
            let what = "vepa: true is not allowed, must be false in switchdev mode";
            return Err(source.value("eswitch", &vepa.span(), what));
        }
    }
    Ok(())
}

fn generate_channels(builder: &mut Builder, over: &Overrides) -> Result<(), ConfigError> {
    let queues = match over.queues_per_channel {
        None => 1,
        Some(asked) => {
            edge::number("queues_per_channel", asked, QUEUES).map_err(on_command_line)?
        }
    };
    for number in 1..=over.channels {
        let name = edge::channel_name(&format!("ch{number}")).map_err(on_command_line)?;
        let spec = ChannelSpec {
            queues,
            ..ChannelSpec::new(name)
        };
        builder.add_channel(spec).map_err(on_command_line)?;
    }
    Ok(())
}
