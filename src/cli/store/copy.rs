//! `taskhook store copy`: from the one kind of database into the other.

use jiff::Timestamp;

use super::super::output::{self, Column, Table};
use super::super::{Context, Error, Exit, Result, runtime};
use super::{refused, show};
use crate::postgres;
use crate::setting::Secret;
use crate::store::{self, care};

/// Copy the store from a SQLite file into a PostgreSQL, while no taskhook runs
///
/// All of it or nothing is there afterwards, and every row is read back and compared before that. The file is left as it was. Events,
/// deliveries and links keep their ids, and a repeat of an old event is known as one. The files of tasks are not in it: they stay in
/// the archive (`archive.url`).
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The store that is copied: `sqlite://` and a path [default: `store.url`]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Where it goes: `postgres://user:password@host/database`; the schema there is `store.schema` [default: `store.url`, where no other
    /// user of this machine can read the password]
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Copies; says what.
pub(super) fn copy(args: &Args, config: &store::Config, now: Timestamp, tell: care::Tell<'_>) -> Result<care::Copied> {
    let usage = |text: String| Error::failed(text).with_exit(Exit::Usage);
    let with = |url: &Option<String>| match url {
        // What belongs to another URL says nothing of this one.
        Some(url) => store::Config { url: Secret::new(url), listen_url: None, ..config.clone() },
        None => config.clone(),
    };
    let (from, to) = (with(&args.from), with(&args.to));
    if !from.url.expose().starts_with("sqlite://") {
        let way = "a copy goes from `sqlite://…` to `postgres://…`; the other way there is none";
        let error = match &args.from {
            Some(_) => usage("`--from` names no SQLite file".to_owned()).hint(way),
            None => usage("`--from` is missing, and `store.url` names no SQLite file".to_owned()).hint(way),
        };
        return Err(error.into());
    }
    if !to.is_shared() {
        let error = match &args.to {
            Some(_) => usage("`--to` names no PostgreSQL".to_owned()),
            None => usage("`--to` is missing, and `store.url` names no PostgreSQL".to_owned()),
        };
        return Err(error.hint("write `postgres://user:password@host/database`").into());
    }
    if let Err(problem) = postgres::parse(to.url.expose()) {
        return Err(usage(format!("`--to` cannot be used: {problem}")).into());
    }
    Ok(runtime()?.block_on(care::copy(&from, &to, now, tell)).map_err(refused)?)
}

/// Tells what was done, and what is to be done next.
pub(super) fn told(args: &Args, context: &mut Context<'_>, copied: &care::Copied) -> Result {
    if args.json {
        return Ok(output::json(context.out, &show::value(copied))?);
    }
    let mut table = Table::new(&[Column::Whole("TABLE"), Column::Number("ROWS"), Column::Whole("CHECKSUM")]);
    for each in &copied.tables {
        table.row([each.name, &each.rows.to_string(), &each.checksum[..16]]);
    }
    table.write(context.out)?;
    context.out.flush()?;
    let err = &mut *context.err;
    let (from, to, schema) = (copied.from.display(), &copied.to, &copied.schema);
    writeln!(err, "Copied {} event(s) and all that belongs to them into the schema `{schema}` of {to}.", copied.events())?;
    writeln!(err, "Every row was read back, and both sides sum up to the same.")?;
    if copied.leases > 0 {
        writeln!(
            err,
            "{} job(s) were in hand when the last taskhook ended: they are due. A delivery that was being sent has an attempt of unknown \
             outcome, as after a crash.",
            copied.leases
        )?;
    }
    if copied.changed_texts > 0 {
        writeln!(
            err,
            "{} text(s) had a zero byte, which PostgreSQL does not know: U+FFFD stands there now. The bodies of events are as they came.",
            copied.changed_texts
        )?;
    }
    writeln!(err, "\nNext:")?;
    writeln!(err, "- set `store.url` to that database, and `store.schema` if it is not the default, for every replica")?;
    writeln!(
        err,
        "- let every replica see the files: `archive.url = \"s3://…\"`, or a shared folder and `archive.shared = true`; what is in the \
         archive stays under the names that it has"
    )?;
    writeln!(err, "- `taskhook check`, then `taskhook serve`")?;
    writeln!(err, "{from} is as it was. Start no taskhook on it again: both would hand on the same events.")?;
    Ok(())
}
