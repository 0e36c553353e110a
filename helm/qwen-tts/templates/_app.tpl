{{/* Times in seconds. Each is longer than the one before: longestStreamSeconds, drain, termination. */}}
{{- define "qwen-tts.drainSeconds" -}}
{{ add .Values.longestStreamSeconds 10 }}
{{- end -}}
{{- define "qwen-tts.terminationSeconds" -}}
{{ add .Values.longestStreamSeconds 30 }}
{{- end -}}

{{/*
The head runs no replica, so its drain saves no stream. KubeRay makes no new head before the old one has gone, and a
cluster without a head cannot scale, deploy or replace anything.
*/}}
{{- define "qwen-tts.headDrainSeconds" -}}
5
{{- end -}}
{{- define "qwen-tts.headTerminationSeconds" -}}
30
{{- end -}}

{{/*
The application's settings: .Values.app and the settings that the chart derives. A model's `talker: {}` is a talker of its
own with the defaults. It is never empty here, because graceful_shutdown_s is added.
*/}}
{{- define "qwen-tts.app" -}}
{{- $app := deepCopy .Values.app -}}
{{- $grace := dict "graceful_shutdown_s" .Values.longestStreamSeconds -}}
{{- range list "talker" "codec_decoder" "codec_encoder" "ingress" -}}
{{- $_ := set $app . (merge (get $app . | default dict) $grace) -}}
{{- end -}}
{{- range $app.models | default list -}}
{{- if kindIs "map" .talker }}{{ $_ := set . "talker" (merge .talker $grace) }}{{ end -}}
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
  # Longer than load balancers keep an idle connection (600 s), so that none of them sends a request into a closed one.
  keep_alive_timeout_s: 620
logging_config:
  encoding: JSON
applications:
  - name: qwen-tts
    route_prefix: /
    import_path: deployments.app:build_app
    # A change of `args` starts new replicas. A change of `deployments` does not.
    args:
      {{- include "qwen-tts.args" . | nindent 6 }}
    deployments:
      {{- include "qwen-tts.deployments" . | nindent 6 }}
{{- end -}}

{{/* The settings that a running replica cannot change. */}}
{{- define "qwen-tts.args" -}}
{{- $live := .Files.Get "files/live-settings.yaml" | fromYaml -}}
{{- $args := include "qwen-tts.app" . | fromYaml -}}
{{- range $name, $keys := $live.settings -}}
{{- if hasKey $args $name -}}
{{- $section := index $args $name -}}
{{- range concat $keys $live.replicas }}{{ $_ := unset $section . }}{{ end -}}
{{- if not $section }}{{ $_ := unset $args $name }}{{ end -}}
{{- end -}}
{{- end -}}
{{- range $model := $args.models | default list -}}
{{- if kindIs "map" .talker -}}
{{- range concat $live.settings.talker $live.replicas }}{{ $_ := unset $model.talker . }}{{ end -}}
{{- end -}}
{{- end -}}
{{ toYaml $args }}
{{- end -}}

{{/* The options of every deployment that Serve changes in place. */}}
{{- define "qwen-tts.deployments" -}}
{{- $live := .Files.Get "files/live-settings.yaml" | fromYaml -}}
{{- $all := list -}}
{{- range (include "qwen-tts.deploymentList" . | fromYaml).deployments -}}
{{- $all = append $all (include "qwen-tts.options" (merge (dict "live" $live) .) | fromYaml) -}}
{{- end -}}
{{ toYaml $all }}
{{- end -}}

{{/* Every deployment: its name, and the other arguments of qwen-tts.options. */}}
{{- define "qwen-tts.deploymentList" -}}
{{- $live := .Files.Get "files/live-settings.yaml" | fromYaml -}}
{{- $app := include "qwen-tts.app" . | fromYaml -}}
{{- $all := list -}}
{{- $clones := false -}}
{{- range $app.models | default $live.models -}}
{{- $clones = or $clones (has (.type | default "base") (list "base")) -}}
{{- $sections := dict "talker" (.talker | default $app.talker) -}}
{{- $name := printf "talker-%s" (replace "/" "-" .name) -}}
{{- $all = append $all (dict "name" $name "sections" $sections "replicas" "talker" "mayStop" .start_wait_s) -}}
{{- end -}}
{{- range $name, $names := $live.deployments -}}
{{- if or $clones (ne $name "codec-encoder") -}}
{{- $all = append $all (dict "name" $name "sections" $app "replicas" (first $names) "others" (rest $names)) -}}
{{- end -}}
{{- end -}}
{{ toYaml (dict "deployments" $all) }}
{{- end -}}

{{/* The options of the deployment `name`, of the section with its `replicas` and the `others`. `mayStop`: it may have none. */}}
{{- define "qwen-tts.options" -}}
{{- $live := .live -}}
{{- $sections := .sections -}}
{{- $replicas := index $sections .replicas -}}
{{- $options := dict "name" .name "graceful_shutdown_timeout_s" $replicas.graceful_shutdown_s -}}
{{- if $replicas.autoscaling -}}
{{- $autoscaling := mergeOverwrite (deepCopy $live.autoscaling) $replicas.autoscaling -}}
{{- $where := printf "app: %s of %s" .replicas .name -}}
{{- include "qwen-tts.checkScaling" (dict "where" $where "section" $replicas "autoscaling" $autoscaling "mayStop" .mayStop) -}}
{{- $_ := set $options "autoscaling_config" $autoscaling -}}
{{- else if $replicas.num_replicas -}}
{{- $_ := set $options "num_replicas" $replicas.num_replicas -}}
{{- end -}}
{{- if kindIs "float64" $replicas.surge_percent -}}
{{- $_ := set $options "max_surge_percent" $replicas.surge_percent -}}
{{- end -}}
{{- $config := dict -}}
{{- range $name := prepend (.others | default list) .replicas -}}
{{- $section := index $sections $name | default dict -}}
{{- $values := dict -}}
{{- range index $live.settings $name -}}
{{- if hasKey $section . }}{{ $_ := set $values . (index $section .) }}{{ end -}}
{{- end -}}
{{- if $values }}{{ $_ := set $config $name $values }}{{ end -}}
{{- end -}}
{{- if $config }}{{ $_ := set $options "user_config" $config }}{{ end -}}
{{ toYaml $options }}
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
{{- if and .Values.modelCache.enabled (not (and .Values.models.claim.enabled .Values.models.download)) -}}
{{- fail "modelCache.enabled fills models.claim: models.claim.enabled and models.download must be true" -}}
{{- end -}}
{{- if and .Values.modelCache.enabled (not .Values.models.claim.existing) (not (has "ReadWriteMany" .Values.models.claim.accessModes)) -}}
{{- fail "modelCache.enabled needs a claim that several nodes mount: models.claim.accessModes: [ReadWriteMany]" -}}
{{- end -}}
{{- if and (include "qwen-tts.hubIds" . | trim) (not .Values.models.download) (not .Values.models.claim.enabled) -}}
{{- fail "models.download is false, so checkpoints named by hub ids must be in models.claim: set models.claim.enabled, or name directories" -}}
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
{{- with .Values.gpuNodes -}}
{{- if and .cluster (not (hasKey .labels .cluster)) -}}
{{- fail (printf "gpuNodes.cluster is %s, and gpuNodes.labels has no such key; it has: %s" .cluster (keys .labels | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.prometheusRule.enabled (not .Values.podMonitor.enabled) -}}
{{- fail "prometheusRule.enabled needs podMonitor.enabled: the alerts select by labels that the PodMonitor adds" -}}
{{- end -}}
{{- include "qwen-tts.checkGroups" . -}}
{{- if not .Values.autoscaler.enabled }}{{ include "qwen-tts.checkPlaces" . }}{{ end -}}
{{- with .Values.gcsFaultTolerance -}}
{{- if and (or .redisAddress .passwordSecret.name) (not .enabled) -}}
{{- fail "gcsFaultTolerance.redisAddress and passwordSecret have no effect; set gcsFaultTolerance.enabled" -}}
{{- end -}}
{{- end -}}
{{- $own := include "qwen-tts.labels" . | fromYaml -}}
{{- with .Values -}}
{{- range $name, $labels := dict "rayServiceLabels" .rayServiceLabels "podMonitor.labels" .podMonitor.labels "prometheusRule.labels" .prometheusRule.labels "dashboard.labels" .dashboard.labels -}}
{{- range $label, $_ := $labels -}}
{{- if hasKey $own $label }}{{ fail (printf "%s: %s is set by the chart; omit it" $name $label) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $pod := concat .Values.workerGroups (list .Values.head .Values.test) -}}
{{- range $label, $_ := $pod.podLabels -}}
{{- if regexMatch "^(app[.]kubernetes[.]io/(name|instance|component)$|ray[.]io/)" $label -}}
{{- fail (printf "podLabels: %s is set by the chart or by KubeRay; omit it" $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
