{{/* Times in seconds. Each is longer than the one before: longestStreamSeconds, drain, termination. */}}
{{- define "qwen-tts.drainSeconds" -}}
{{ add .Values.longestStreamSeconds 10 }}
{{- end -}}
{{- define "qwen-tts.terminationSeconds" -}}
{{ add .Values.longestStreamSeconds 30 }}
{{- end -}}

{{/* The application's settings: .Values.app and the settings that the chart derives. */}}
{{- define "qwen-tts.app" -}}
{{- $app := deepCopy .Values.app -}}
{{- $grace := dict "graceful_shutdown_s" .Values.longestStreamSeconds -}}
{{- range list "talker" "codec_decoder" "codec_encoder" "ingress" -}}
{{- $_ := set $app . (merge (get $app . | default dict) $grace) -}}
{{- end -}}
{{- range $app.models | default list -}}
{{- if .talker }}{{ $_ := set . "talker" (merge .talker $grace) }}{{ end -}}
{{- end -}}
{{- if .Values.apiKeys.secretName -}}
{{- $_ := set $app "api_keys" (dict "file" (printf "/etc/qwen-tts/%s" .Values.apiKeys.key)) -}}
{{- end -}}
{{- if .Values.voices.claim.enabled -}}
{{- $_ := set $app "voices" (merge ($app.voices | default dict) (dict "url" "/voices")) -}}
{{- end -}}
{{ toYaml $app }}
{{- end -}}

{{- define "qwen-tts.serveConfig" -}}
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: 8000
logging_config:
  encoding: JSON
applications:
  - name: qwen-tts
    route_prefix: /
    import_path: deployments.app:build_app
    args:
      {{- include "qwen-tts.app" . | nindent 6 }}
{{- end -}}

{{/* The checkpoints that are hub ids, one per line: those that are neither embedded nor a directory. */}}
{{- define "qwen-tts.hubIds" -}}
{{- range .Values.app.models | default list -}}
{{- $checkpoint := .checkpoint | default "embedded" -}}
{{- if not (or (eq $checkpoint "embedded") (hasPrefix "/" $checkpoint) (hasPrefix "." $checkpoint) (hasPrefix "~" $checkpoint)) }}
{{ $checkpoint }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Checks of several values together, which a schema cannot express. */}}
{{- define "qwen-tts.check" -}}
{{- $voices := .Values.app.voices | default dict -}}
{{- $ingress := .Values.app.ingress | default dict -}}
{{- $shared := or .Values.voices.claim.enabled (contains "://" ($voices.url | default "")) -}}
{{- if and .Values.voices.claim.enabled $voices.url -}}
{{- fail "voices.claim.enabled and app.voices.url both say where voices are kept; set one" -}}
{{- end -}}
{{- if and (not $shared) (or $ingress.autoscaling (gt (int ($ingress.num_replicas | default 1)) 1)) -}}
{{- fail "several ingress replicas need a voice library that all of them see: voices.claim.enabled, or app.voices.url (s3://...)" -}}
{{- end -}}
{{- if and (eq .Values.upgradeStrategy.type "NewClusterWithIncrementalUpgrade") (or .Values.ingress.enabled .Values.httpRoute.enabled) -}}
{{- fail "upgradeStrategy.type NewClusterWithIncrementalUpgrade makes a Gateway and a route of its own: ingress.enabled and httpRoute.enabled must be false" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs is empty; name the Gateway" -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.metricsFrom) -}}
{{- fail "podMonitor.enabled needs networkPolicy.metricsFrom: nobody else may read metrics" -}}
{{- end -}}
{{- range .Values.workerGroups -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "workerGroups: of %s minReplicas %d is above maxReplicas %d" .name (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- if and .mps (not (index .resources.limits "nvidia.com/gpu")) -}}
{{- fail (printf "workerGroups: %s has mps and no GPU in resources.limits (nvidia.com/gpu)" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
