//! What a request brings, with errors in the one shape that all of them have.

use super::error::ApiError;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};
use std::fmt;
use std::marker::PhantomData;

/// JSON of the body: an object.
pub struct Body<T>(pub T);

impl<S, T> FromRequest<S> for Body<T>
where
    S: Send + Sync,
    T: for<'de> Deserialize<'de>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let axum::Json(Object(body)) = axum::Json::from_request(request, state).await?;
        Ok(Body(body))
    }
}

/// A structure with its fields by name: serde's own ones take an array for their fields in order too, as no document says.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// Parameters behind the question mark.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiError))]
pub struct Query<T>(pub T);

/// Parameters within the address.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub struct Path<T>(pub T);

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        ApiError::new(rejection.status(), "bad_request", rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        ApiError::new(rejection.status(), "bad_request", rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        ApiError::new(rejection.status(), "bad_request", rejection.body_text())
    }
}

/// Writes into an OpenAPI document how what a request brings may be refused, and that numbers without a sign have none.
pub fn describe(document: &mut Value) {
    unsigned(document);
    let Some(paths) = document["paths"].as_object_mut() else {
        return;
    };
    for operation in paths
        .values_mut()
        .filter_map(Value::as_object_mut)
        .flat_map(|item| item.iter_mut())
    {
        let (method, operation) = operation;
        let mut refusals = Vec::new();
        if operation["parameters"].as_array().is_some_and(|list| !list.is_empty()) {
            refusals.push(("400", "a parameter cannot be read"));
        }
        let body = &operation["requestBody"]["content"];
        if body["application/json"].is_object() {
            refusals.push(("400", "the body is no JSON"));
            refusals.push(("422", "the body is not what is expected"));
        }
        if body["application/json"].is_object() && body["application/octet-stream"].is_null() {
            refusals.push(("415", "the body is not said to be JSON"));
        }
        // Also a body that nobody asked for, where it comes with a key.
        if body.is_object() || method == "post" {
            refusals.push(("413", "the body is too large"));
        }
        let error = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/ApiError" } } });
        for (status, words) in refusals {
            if operation["responses"][status].is_null() {
                operation["responses"][status] = json!({ "description": words, "content": error });
            }
        }
    }
}

/// Integers from 0 on are of 64 or 32 bits, none of them for a sign.
fn unsigned(part: &mut Value) {
    match part {
        Value::Array(list) => list.iter_mut().for_each(unsigned),
        Value::Object(map) => {
            if map.get("minimum").and_then(Value::as_u64) == Some(0) {
                for (signed, unsigned) in [("int64", "uint64"), ("int32", "uint32")] {
                    if map.get("format").is_some_and(|format| format == signed) {
                        map.insert("format".into(), unsigned.into());
                    }
                }
            }
            map.values_mut().for_each(unsigned);
        }
        _ => {}
    }
}
