//! `fluxline token`

use super::Failure;
use crate::config::Config;
use crate::feedback::access::audit::{Line, append};
use crate::feedback::access::tokens::{self, TokenError};
use crate::feedback::access::{Role, audit_path, tokens_path};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;

/// `fluxline token`
#[derive(Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    what: What,
    /// configuration file of the appliance
    #[arg(long, global = true, default_value = "/etc/fluxline/fluxline.toml")]
    config: PathBuf,
    /// print one JSON document
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// Makes a token and prints it, once; from the first one on, nobody without one is served
    Create {
        /// whose it is, for example bliss, control-room or a person's name
        name: String,
        /// viewer looks; operator also arms, ends and changes; admin also manages tokens
        #[arg(long)]
        role: Role,
        /// days after which it ends, 1 to 3650
        #[arg(long)]
        days: Option<u32>,
        /// limits it to a proposal (PROPOSAL) or a run (PROPOSAL/RUN), may be given several times; other runs are for it as
        /// if they did not exist
        #[arg(long, value_name = "PROPOSAL[/RUN]")]
        only: Vec<String>,
    },
    /// Lists names, roles and times
    List,
    /// Takes a token out of force, within a second also where the appliance runs
    Revoke {
        /// its name
        name: String,
    },
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Request(_) => Failure::Usage(error.to_string()),
            _ => Failure::Work(error.to_string()),
        }
    }
}

pub(crate) fn token(args: &TokenArgs) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    let path = tokens_path(&config);
    match &args.what {
        What::Create { name, role, days, only } => {
            let first = !path.exists();
            let (secret, token) = tokens::create(&path, name, *role, *days, only)?;
            let limits: String = only.iter().map(|entry| format!(" --only {entry}")).collect();
            note(&config, format!("token create {name} {}{limits}", role.name()));
            if args.json {
                println!(
                    "{:#}",
                    json!({ "token": secret, "name": name, "role": role, "only": only, "expires": token.expires })
                );
                return Ok(());
            }
            println!("{secret}");
            eprintln!(
                "This is the token of {name} ({}). It is shown this once and kept nowhere.",
                role.name()
            );
            if first {
                eprintln!("It is the first one: from now on nobody without a token is served.");
            }
        }
        What::List => {
            let tokens = if path.exists() {
                tokens::read(&path)?
            } else {
                Vec::new()
            };
            if args.json {
                let list = tokens.iter().map(|token| {
                    json!({ "name": token.name, "role": token.role, "only": token.only, "created": token.created, "expires": token.expires })
                });
                println!(
                    "{:#}",
                    json!({ "in_use": path.exists(), "tokens": list.collect::<Vec<_>>() })
                );
                return Ok(());
            }
            for token in &tokens {
                let end = token.expires.map_or("does not end".into(), |end| format!("ends {end}"));
                println!(
                    "{:24} {:9} made {}  {end}{}",
                    token.name,
                    token.role.name(),
                    token.created,
                    match token.only.is_empty() {
                        true => String::new(),
                        false => format!("  only {}", token.only.join(", ")),
                    }
                );
            }
            match (path.exists(), tokens.is_empty()) {
                (false, _) => {
                    eprintln!("No tokens are in use: the interface is open to this machine, and to no other.")
                }
                (true, true) => eprintln!(
                    "There is no token: nobody is served. Make one, or remove {}.",
                    path.display()
                ),
                _ => {}
            }
        }
        What::Revoke { name } => {
            tokens::revoke(&path, name)?;
            note(&config, format!("token revoke {name}"));
            eprintln!("Token {name} holds no longer.");
        }
    }
    Ok(())
}

/// Into the audit log, beside what is changed over HTTP.
fn note(config: &Config, command: String) {
    let line = Line {
        time: jiff::Timestamp::now().to_string(),
        name: "command line".into(),
        role: Role::Admin.name(),
        client: String::new(),
        method: command,
        path: String::new(),
        status: 0,
    };
    append(&audit_path(config), &line);
}
