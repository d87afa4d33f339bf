//! `bay key`: makes, lists and revokes keys, in the database, or through the Bay that runs on it.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::admin_client::ask;
use crate::auth::{Scope, SystemContext, Tenant};
use crate::config::{Config, Flags, Span, environment};
use crate::credentials::create_key;
use crate::edge::wire::{CreateKey, CreatedKey, KeyList, KeyObject};
use crate::error::ApiError;
use crate::id::Kind;
use crate::instance::Instance;
use crate::store::{Cursor, OpenError, Page, Store};
use crate::time::now_ms;

/// Where the admin socket has them, too.
const KEYS: &str = "/v1/admin/keys";

/// What can be typed after `bay key`.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key and print it; it is never shown again.
    Create(CreateArgs),
    /// List keys, newest first; never a secret.
    List(ListArgs),
    /// Revoke a key at once, and every sandbox token it made.
    Revoke(RevokeArgs),
}

/// What can be typed after `bay key create`.
#[derive(Debug, Clone, Args)]
pub(super) struct CreateArgs {
    /// Whose key it is.
    #[arg(long, default_value = "default")]
    tenant: String,
    /// What it may do, separated by commas.
    #[arg(long, alias = "scope", value_name = "SCOPES", value_delimiter = ',', default_value = "sandboxes")]
    scopes: Vec<ScopeArg>,
    /// After how long it works no more, for instance 12h or 30d; never when not given.
    #[arg(long, value_name = "TIME", value_parser = Span::parse)]
    expires: Option<Span>,
    /// What it is for.
    #[arg(long, default_value = "made on the command line")]
    name: String,
    #[command(flatten)]
    place: Place,
}

/// What can be typed after `bay key list`.
#[derive(Debug, Clone, Args)]
pub(super) struct ListArgs {
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// What can be typed after `bay key revoke`.
#[derive(Debug, Clone, Args)]
pub(super) struct RevokeArgs {
    /// Which, `key_…`; what is between the first and the last `_` of the key itself.
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Clone, Args)]
struct Place {
    /// Configuration file; it may say where Bay keeps its data.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where Bay keeps its data; the usual place when not given.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScopeArg {
    Sandboxes,
    #[value(name = "lockers:files")]
    LockersFiles,
    Ops,
    Admin,
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::Sandboxes => Self::Sandboxes,
            ScopeArg::LockersFiles => Self::LockersFiles,
            ScopeArg::Ops => Self::Ops,
            ScopeArg::Admin => Self::Admin,
        }
    }
}

/// Runs one command.
pub(super) async fn run(command: KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::Create(args) => create(args).await,
        KeyCommand::List(args) => list(args).await,
        KeyCommand::Revoke(args) => revoke(args).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let tenant = tenant(&args.tenant)?;
    let scopes: Vec<_> = args.scopes.iter().map(|scope| Scope::from(*scope).as_str()).collect();
    let mut body = json!({ "tenant": tenant.as_str(), "scopes": scopes, "name": args.name });
    if let Some(expires) = args.expires {
        body["expires_in"] = json!(expires.as_secs());
    }
    let made = Keys::open(&args.place)?.create(&body).await?;
    writeln!(std::io::stdout(), "{}", made.secret)?;
    Ok(())
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let of = args.tenant.as_deref().map(tenant).transpose()?;
    let keys = Keys::open(&args.place)?;
    let mut out = std::io::stdout();
    let mut cursor = None;
    loop {
        let page = keys.list(of.as_ref(), cursor.as_deref()).await?;
        for key in page.items {
            writeln!(out, "{}", line(&key))?;
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

/// One line for people and for `cut`: tabs apart.
fn line(key: &KeyObject) -> String {
    let state = match (&key.revoked_at, &key.expires_at) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) => format!("expires {at}"),
        (None, None) => "never expires".to_owned(),
    };
    let used = key.last_used_at.as_ref().map_or_else(|| "never used".to_owned(), |at| format!("used {at}"));
    [
        &key.id,
        &key.tenant,
        &key.scopes.join(","),
        &format!("made {}", key.created_at),
        &state,
        &used,
        &key.name,
    ]
    .map(String::as_str)
    .join("\t")
}

async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    if !Kind::Key.is(&args.id) {
        bail!(
            "`{}` is not the id of a key: `key_` and 26 letters and digits, as `bay key list` shows",
            args.id
        );
    }
    Keys::open(&args.place)?.revoke(&args.id).await?;
    writeln!(std::io::stdout(), "revoked {}", args.id)?;
    Ok(())
}

fn tenant(name: &str) -> anyhow::Result<Tenant> {
    Tenant::new(name)
        .with_context(|| format!("`{name}` is not a tenant: 1-63 of a-z, 0-9, `_` and `-`, no sign first"))
}

/// Where the keys are.
enum Keys {
    /// In a database that nobody has open.
    Stored(Store),
    /// With the Bay that runs on this data directory.
    Served(PathBuf),
}

impl Keys {
    fn open(place: &Place) -> anyhow::Result<Self> {
        let flags = Flags { data_dir: place.data_dir.clone(), listen: None };
        let config = Config::load(place.config.as_deref(), environment(), &flags)?;
        let instance = Instance::open(&config.data_dir)?;
        match Store::open(instance.data_dir()) {
            Ok(store) => Ok(Self::Stored(store)),
            Err(OpenError::Locked { .. }) => Ok(Self::Served(instance.data_dir().to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    async fn create(&self, body: &Value) -> anyhow::Result<CreatedKey> {
        match self {
            Self::Stored(store) => {
                let wanted = CreateKey::parse(body, &Tenant::default_tenant()).map_err(in_words)?;
                let (row, key) = create_key(store, wanted).await?;
                Ok(CreatedKey { key: row.into(), secret: key.reveal() })
            }
            Self::Served(bay) => ask(bay, "POST", KEYS, Some(body)).await,
        }
    }

    async fn list(&self, tenant: Option<&Tenant>, cursor: Option<&str>) -> anyhow::Result<KeyList> {
        match self {
            Self::Stored(store) => {
                let page = Page { limit: Page::MAX, cursor: cursor.and_then(Cursor::decode) };
                let system = SystemContext::for_background();
                Ok(store.list_keys(&system, tenant.cloned(), page).await?.into())
            }
            Self::Served(bay) => {
                // Neither a tenant's name nor a cursor has a character that a query would have to escape.
                let mut target = format!("{KEYS}?limit={}", Page::MAX);
                for (name, value) in [("tenant", tenant.map(Tenant::as_str)), ("cursor", cursor)] {
                    if let Some(value) = value {
                        target.push_str(&format!("&{name}={value}"));
                    }
                }
                ask(bay, "GET", &target, None).await
            }
        }
    }

    /// `id` has the form of one.
    async fn revoke(&self, id: &str) -> anyhow::Result<()> {
        match self {
            Self::Stored(store) => {
                let system = SystemContext::for_background();
                store.revoke_key(&system, id, now_ms()).await.map(drop).map_err(|e| in_words(e.into()))
            }
            Self::Served(bay) => ask(bay, "DELETE", &format!("{KEYS}/{id}"), None).await,
        }
    }
}

fn in_words(error: ApiError) -> anyhow::Error {
    anyhow::anyhow!(error.message)
}
