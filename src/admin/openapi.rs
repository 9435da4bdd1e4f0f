//! `GET /api/v1/openapi.json`: what the admin API takes and answers, as OpenAPI 3.1, made from the handlers.
//!
//! What must hold: a route is served only by being described here, and what all operations have in common is said once, by rules that
//! hold for each of them.

use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, HttpMethod, OpenApi, PathItem, Ref, RefOr, Required, Response, ResponseBuilder};
use utoipa::{IntoResponses, Modify};

use super::api::Problem;
use super::{idempotency, list};

/// The content type of a [`Problem`].
pub(super) const PROBLEM: &str = "application/problem+json";
/// What cursors look like. No program should need to know.
const CURSOR: &str = "^[0-9]{1,18}$";
/// What is not blank.
const SOMETHING: &str = r"\S";
/// Schemas of answers of which not every property is always there.
const PARTIAL: [&str; 1] = ["StatsSince"];

/// What is the same of all operations; [`whole`] adds it to each.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "taskhook admin API",
        description = "What was received, what becomes of it, and what can be done about it. `src/docs/admin.md` says more, in words."
    ),
    components(schemas(Problem)),
    security(("token" = [])),
    modifiers(&Lock)
)]
pub(super) struct Description;

/// How a program shows who it is. A browser that signed in has its session instead.
struct Lock;

impl Modify for Lock {
    fn modify(&self, openapi: &mut OpenApi) {
        let Some(components) = &mut openapi.components else { return };
        let token = Http::builder().scheme(HttpAuthScheme::Bearer);
        let token =
            token.description(Some("`admin.token`, which may do everything, or `admin.read_token`, which sees everything"));
        components.add_security_scheme("token", SecurityScheme::Http(token.build()));
    }
}

/// What operations answer that ask the provider.
pub(super) struct ByProvider;

impl IntoResponses for ByProvider {
    fn responses() -> std::collections::BTreeMap<String, RefOr<Response>> {
        let refused =
            problem("The provider refused it (`provider_refused`), or nobody knows whether it took it (`outcome_unknown`)");
        [("502".to_owned(), refused.into())].into()
    }
}

/// `api`, with what all operations have in common.
pub(super) fn whole(mut api: OpenApi) -> OpenApi {
    for (path, item) in &mut api.paths.paths {
        for (method, operation) in operations(item) {
            complete(path, &method, operation);
        }
    }
    for (name, schema) in api.components.iter_mut().flat_map(|components| &mut components.schemas) {
        if let RefOr::T(schema) = schema {
            require(schema, !PARTIAL.contains(&name.as_str()));
            if let Some((_, of)) = name.split_once('_') {
                refer(schema, of);
            }
        }
    }
    api
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    let PathItem { get, put, post, delete, .. } = item;
    [(HttpMethod::Get, get), (HttpMethod::Put, put), (HttpMethod::Post, post), (HttpMethod::Delete, delete)]
        .into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn problem(description: &str) -> Response {
    let schema = Content::new(Some(Ref::from_schema_name("Problem")));
    ResponseBuilder::new().description(description).content(PROBLEM, schema).build()
}

fn complete(path: &str, method: &HttpMethod, operation: &mut Operation) {
    let group = path.strip_prefix("/api/v1/").and_then(|rest| rest.split('/').next()).unwrap_or("metrics");
    operation.tags = Some(vec![group.to_owned()]);
    let (changes, once) = (*method != HttpMethod::Get, *method == HttpMethod::Post);
    if once {
        operation.parameters.get_or_insert_default().push(key().into());
    }
    let named = path.contains('{');
    let takes = named || operation.request_body.is_some() || operation.parameters.is_some();
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            say(parameter);
        }
    }
    let problems = [
        (takes, "400", "The path, the query or the body cannot mean anything: `title` says what, and what could"),
        (true, "401", "No token, or not one of ours (`token_invalid`)"),
        (changes, "403", "The token may only look (`scope_missing`), or a page of another site asked (`origin_not_allowed`)"),
        (named || changes, "404", "There is no such thing (`not_found`)"),
        (named || changes, "409", "It does not stand so that this could be done, or several fit: `code` says which"),
        (operation.request_body.is_some(), "413", "The body is too large"),
        (once, "422", "Something else was sent with this key (`idempotency_key_reused`)"),
        (true, "421", "No token is set, and the request is for another name than this machine's (`host_not_allowed`)"),
        (true, "503", "The store cannot be read or written now (`store_unavailable`), or no more is taken (`too_many`)"),
    ];
    for (_, status, description) in problems.into_iter().filter(|(may_be, ..)| *may_be) {
        operation.responses.responses.insert(status.to_owned(), problem(description).into());
    }
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            "What was asked for".clone_into(&mut response.description);
        }
    }
}

/// What a post may come with, so that it is done once.
fn key() -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::String).max_length(Some(idempotency::MAX_KEY));
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "A key of yours, a new one for each thing that is to be done: sent again with it within a day, it is answered again \
             (`Idempotent-Replayed: true`) and not done again",
        ))
        .schema(Some(schema.pattern(Some("^[!#-~][!-~]*$"))))
        .build()
}

/// Says of a word of a query that several lists have what it means, and what it may be.
fn say(parameter: &mut Parameter) {
    let name = parameter.name.as_str();
    if parameter.description.is_none() {
        parameter.description = meaning(name).map(ToOwned::to_owned);
    }
    let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema else { return };
    match name {
        "limit" => {
            (schema.minimum, schema.maximum) = (Some(1.into()), Some(list::MOST.into()));
            schema.default = Some(list::FEW.into());
        }
        "cursor" | "after" => schema.pattern = Some(CURSOR.to_owned()),
        "text" => (schema.pattern, schema.max_length) = (Some(SOMETHING.to_owned()), Some(list::MOST_TEXT)),
        _ => {}
    }
}

fn meaning(name: &str) -> Option<&'static str> {
    Some(match name {
        "limit" => "At most so many rows",
        "cursor" => "Go on: `next_cursor` of the page before",
        "after" => "Only what is newer than this cursor, the oldest first; `0` begins with the first",
        "source" => "Of this source",
        "type" => "Of events of this type",
        "task" => "Of this task, by the provider's id",
        "state" => "That stand so",
        "since" => "From this time on",
        "until" => "Before this time",
        "text" => "With this text in a title or an id",
        "destination" => "To this destination",
        "route" => "Chosen by this route",
        "code" => "That were answered so",
        _ => return None,
    })
}

/// An answer has all its properties, be they `null`: what is asked, and alone refuses what it does not know, may leave some out.
fn require(schema: &mut Schema, whole: bool) {
    match schema {
        Schema::Object(object) => {
            let asks = object.additional_properties.as_deref() == Some(&AdditionalProperties::FreeForm(false));
            if !asks {
                object.required = object.properties.keys().filter(|_| whole).cloned().collect();
            }
        }
        Schema::AllOf(all) => {
            for item in &mut all.items {
                if let RefOr::T(item) = item {
                    require(item, whole);
                }
            }
        }
        _ => {}
    }
}

/// Of a schema that is made of another one, such as `Listed_EventRow`: names that one instead of saying it a second time.
fn refer(schema: &mut Schema, of: &str) {
    let Schema::Object(object) = schema else { return };
    let named = || RefOr::Ref(Ref::from_schema_name(of));
    if let Some(filter) = object.properties.get_mut("filter") {
        *filter = named();
    }
    if let Some(RefOr::T(Schema::Array(rows))) = object.properties.get_mut("data") {
        rows.items = ArrayItems::RefOrSchema(Box::new(named()));
    }
}
