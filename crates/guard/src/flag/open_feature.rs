//! An OpenFeature provider (<https://openfeature.dev/specification/sections/providers>) over [`Flags`].

use async_trait::async_trait;
use open_feature::provider::{FeatureProvider, ProviderMetadata, ResolutionDetails};
use open_feature::{
    EvaluationContext, EvaluationContextFieldValue, EvaluationError, EvaluationErrorCode, EvaluationReason,
    EvaluationResult, FlagMetadata, StructValue, Value as Found,
};
use serde_json::{Map, Value};

use super::{Context, Evaluation, Flags, Freshness, Origin, Reason};

/// Flags as OpenFeature's clients ask for them. What is behind a value is in its reason and metadata: `age_ms`, `stale`,
/// `override`, `note`, `changed`.
#[derive(Debug)]
pub struct Provider<O> {
    flags: Flags<O>,
    metadata: ProviderMetadata,
}

impl<O: Origin> Provider<O> {
    /// Over these flags.
    pub fn new(flags: Flags<O>) -> Self {
        Self { flags, metadata: ProviderMetadata::new("pgrunbook") }
    }

    async fn resolve<T>(
        &self,
        flag: &str,
        context: &EvaluationContext,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> EvaluationResult<ResolutionDetails<T>> {
        // Null stands for the caller's default, which the client puts in.
        let found = self.flags.evaluate(flag, &context_of(context), Value::Null).await;
        let error = |code, message: String| EvaluationError { code, message: Some(message) };
        match &found.reason {
            Reason::NotFound => return Err(error(EvaluationErrorCode::FlagNotFound, found.to_string())),
            Reason::NoKey => return Err(error(EvaluationErrorCode::TargetingKeyMissing, found.to_string())),
            Reason::Malformed(_) => return Err(error(EvaluationErrorCode::ParseError, found.to_string())),
            Reason::Unavailable(_) => return Err(error(EvaluationErrorCode::ProviderNotReady, found.to_string())),
            // OpenFeature has no way to say "your default, and no error": the reason is in the message.
            Reason::Disabled | Reason::Default if found.value.is_null() => {
                return Err(error(EvaluationErrorCode::General(reason_of(&found).to_string()), found.to_string()));
            }
            _ => {}
        }
        let value = read(&found.value);
        let value = value.ok_or_else(|| error(EvaluationErrorCode::TypeMismatch, found.to_string()))?;
        let mut metadata = FlagMetadata::default();
        match &found.freshness {
            Freshness::Current { age } => metadata.add_value("age_ms", milliseconds(*age)),
            Freshness::Stale { age, why } => {
                metadata.add_value("age_ms", milliseconds(*age));
                metadata.add_value("stale", why.clone());
            }
            Freshness::Unknown => {}
        }
        if let Reason::Override { variable } = &found.reason {
            metadata.add_value("override", variable.clone());
        }
        for (name, value) in [("note", &found.note), ("changed", &found.changed)] {
            if let Some(value) = value {
                metadata.add_value(name, value.clone());
            }
        }
        let reason = Some(reason_of(&found));
        Ok(ResolutionDetails { value, variant: found.variant, reason, flag_metadata: Some(metadata) })
    }
}

fn milliseconds(age: std::time::Duration) -> i64 {
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

fn reason_of(found: &Evaluation) -> EvaluationReason {
    match &found.reason {
        Reason::Static => EvaluationReason::Static,
        Reason::Split => EvaluationReason::Split,
        Reason::TargetingMatch => EvaluationReason::TargetingMatch,
        Reason::Default => EvaluationReason::Default,
        Reason::Disabled => EvaluationReason::Disabled,
        Reason::Override { .. } => EvaluationReason::Other("OVERRIDE".to_owned()),
        Reason::NotFound | Reason::NoKey | Reason::Malformed(_) | Reason::Unavailable(_) => EvaluationReason::Error,
    }
}

/// A structure of the application's own types is opaque and stays behind; a time becomes seconds.
fn context_of(context: &EvaluationContext) -> Context {
    let fields = context.custom_fields.iter().filter_map(|(name, field)| {
        let value = match field {
            EvaluationContextFieldValue::Bool(truth) => Value::from(*truth),
            EvaluationContextFieldValue::Int(number) => Value::from(*number),
            EvaluationContextFieldValue::Float(number) => Value::from(*number),
            EvaluationContextFieldValue::String(text) => Value::from(text.as_str()),
            EvaluationContextFieldValue::DateTime(time) => Value::from(time.unix_timestamp()),
            EvaluationContextFieldValue::Struct(_) => return None,
        };
        Some((name.clone(), value))
    });
    Context { key: context.targeting_key.clone(), fields: fields.collect::<Map<_, _>>() }
}

fn structure(fields: &Map<String, Value>) -> StructValue {
    StructValue { fields: fields.iter().map(|(name, value)| (name.clone(), found(value))).collect() }
}

fn found(value: &Value) -> Found {
    match value {
        // OpenFeature's values have no null.
        Value::Null => Found::String(String::new()),
        Value::Bool(truth) => Found::Bool(*truth),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Found::Float(number.as_f64().unwrap_or_default()), Found::Int)
        }
        Value::String(text) => Found::String(text.clone()),
        Value::Array(items) => Found::Array(items.iter().map(found).collect()),
        Value::Object(fields) => Found::Struct(structure(fields)),
    }
}

#[async_trait]
impl<O: Origin + 'static> FeatureProvider for Provider<O> {
    fn metadata(&self) -> &ProviderMetadata {
        &self.metadata
    }

    async fn resolve_bool_value(
        &self,
        flag_key: &str,
        evaluation_context: &EvaluationContext,
    ) -> EvaluationResult<ResolutionDetails<bool>> {
        self.resolve(flag_key, evaluation_context, Value::as_bool).await
    }

    async fn resolve_int_value(
        &self,
        flag_key: &str,
        evaluation_context: &EvaluationContext,
    ) -> EvaluationResult<ResolutionDetails<i64>> {
        self.resolve(flag_key, evaluation_context, Value::as_i64).await
    }

    async fn resolve_float_value(
        &self,
        flag_key: &str,
        evaluation_context: &EvaluationContext,
    ) -> EvaluationResult<ResolutionDetails<f64>> {
        self.resolve(flag_key, evaluation_context, Value::as_f64).await
    }

    async fn resolve_string_value(
        &self,
        flag_key: &str,
        evaluation_context: &EvaluationContext,
    ) -> EvaluationResult<ResolutionDetails<String>> {
        self.resolve(flag_key, evaluation_context, |value| value.as_str().map(str::to_owned)).await
    }

    async fn resolve_struct_value(
        &self,
        flag_key: &str,
        evaluation_context: &EvaluationContext,
    ) -> EvaluationResult<ResolutionDetails<StructValue>> {
        self.resolve(flag_key, evaluation_context, |value| value.as_object().map(structure)).await
    }
}
