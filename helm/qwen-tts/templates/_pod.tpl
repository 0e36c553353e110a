{{/* Parts of Ray's pods. The pods need no privileges, and write only to their volumes. */}}
{{- define "qwen-tts.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "qwen-tts.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The fields of the class Pod (k8s/render/values.py) that the spec of a pod contains as they are. */}}
{{- define "qwen-tts.podFields" -}}
{{- $fields := dict -}}
{{- range $name := list "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" "schedulerName" "resourceClaims" -}}
{{- with index $ $name }}{{ $_ := set $fields $name . }}{{ end -}}
{{- end -}}
{{- with $fields }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* The labels and annotations of a pod. Arguments: root, component, pod. */}}
{{- define "qwen-tts.podMetadata" -}}
labels:
  {{- include "qwen-tts.selector" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  {{- with .pod.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .pod.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "qwen-tts.container" -}}
image: {{ include "qwen-tts.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "qwen-tts.containerSecurity" . | nindent 2 }}
{{- end -}}

{{- define "qwen-tts.variables" -}}
{{- $variables := list -}}
{{- range $name, $value := . }}{{ $variables = append $variables (dict "name" $name "value" $value) }}{{ end -}}
{{ toYaml $variables }}
{{- end -}}

{{- define "qwen-tts.commonEnv" -}}
HOME: /home/qwen-tts
RAY_USAGE_STATS_ENABLED: "0"
# At the end of a stream, a replica waits until Ray knows whether the caller is dead. The default is a second.
RAY_core_worker_rpc_server_reconnect_timeout_base_s: "0"
RAY_grpc_client_check_connection_status_interval_milliseconds: "50"
{{- end -}}

{{/*
The variables of Ray's containers. No name repeats, because the API server refuses that. The user's values win. NVIDIA's
runtime shows every GPU of the node to a container whose image says NVIDIA_VISIBLE_DEVICES=all; void hides them.
*/}}
{{- define "qwen-tts.headEnv" -}}
{{- $own := include "qwen-tts.commonEnv" . | fromYaml -}}
{{- $_ := set $own "NVIDIA_VISIBLE_DEVICES" "void" -}}
{{- $_ := set $own "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S" (include "qwen-tts.headDrainSeconds" .) -}}
{{- include "qwen-tts.variables" (mergeOverwrite $own (.Values.head.env | default dict)) -}}
{{- end -}}

{{/* Arguments: root, group, offline. */}}
{{- define "qwen-tts.workerEnv" -}}
{{- $own := include "qwen-tts.commonEnv" . | fromYaml -}}
{{- $_ := set $own "HF_HOME" "/models" -}}
{{- $_ := set $own "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S" (include "qwen-tts.drainSeconds" .root) -}}
{{- if .offline -}}
{{- $_ := set $own "HF_HUB_OFFLINE" "1" -}}
{{- end -}}
{{- if not (include "qwen-tts.gpus" .group) -}}
{{- $_ := set $own "NVIDIA_VISIBLE_DEVICES" "void" -}}
{{- end -}}
{{- if .group.mps -}}
{{- $_ := merge $own (dict "CUDA_MPS_PIPE_DIRECTORY" "/tmp/nvidia-mps" "CUDA_MPS_LOG_DIRECTORY" "/tmp/nvidia-mps-log") -}}
{{- end -}}
{{- include "qwen-tts.variables" (mergeOverwrite $own .root.Values.env (.group.env | default dict)) -}}
{{- end -}}

{{/*
The GPUs of a group's pods, or nothing: whole ones, parts (nvidia.com/mig-1g.10gb) and shared ones. Ray's autoscaler
counts only names that end with "gpu". `rayResources: {GPU: ...}` gives the number for other devices and for claims.
*/}}
{{- define "qwen-tts.gpus" -}}
{{- $count := 0 -}}
{{- range $name, $amount := .resources.limits -}}
{{- if regexMatch "^(nvidia|amd)[.]com/" $name }}{{ $count = add $count (int $amount) }}{{ end -}}
{{- end -}}
{{- $count = (.rayResources | default dict).GPU | default $count -}}
{{- if int $count }}{{ $count }}{{ end -}}
{{- end -}}

{{/* Ray's resources of a group. */}}
{{- define "qwen-tts.rayResources" -}}
{{- $resources := .rayResources | default dict | deepCopy -}}
{{- with include "qwen-tts.gpus" . }}{{ $_ := set $resources "GPU" . }}{{ end -}}
{{- with $resources }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/*
The resources of a worker. Downloaded models count as ephemeral storage. The API server refuses a request above the limit.
Arguments: root, group, downloads.
*/}}
{{- define "qwen-tts.workerResources" -}}
{{- $resources := deepCopy .group.resources -}}
{{- if and .downloads (not .root.Values.models.claim.enabled) -}}
{{- $size := index $resources.limits "ephemeral-storage" | default .root.Values.models.emptyDirSize -}}
{{- $_ := set $resources "requests" (merge $resources.requests (dict "ephemeral-storage" $size)) -}}
{{- end -}}
{{ toYaml $resources }}
{{- end -}}

{{/* Ray writes below /tmp/ray, and compilers write below /tmp. */}}
{{- define "qwen-tts.scratchMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: /home/qwen-tts}
{{- end -}}
{{- define "qwen-tts.scratchVolumes" -}}
- {name: tmp, emptyDir: {}}
- {name: home, emptyDir: {}}
{{- end -}}

{{/* The volume source of a claim: the existing claim, the chart's claim, or an emptyDir. Arguments: claim, name, emptyDirSize. */}}
{{- define "qwen-tts.claimSource" -}}
{{- if .claim.enabled -}}
persistentVolumeClaim: {claimName: {{ .claim.existing | default .name }}}
{{- else -}}
emptyDir: {sizeLimit: {{ .emptyDirSize }}}
{{- end -}}
{{- end -}}

{{- define "qwen-tts.workerVolumes" -}}
{{ include "qwen-tts.scratchVolumes" . }}
- name: models
  {{- include "qwen-tts.claimSource" (dict "claim" .Values.models.claim "name" (printf "%s-models" (include "qwen-tts.name" .)) "emptyDirSize" .Values.models.emptyDirSize) | nindent 2 }}
{{- if .Values.voices.claim.enabled }}
- name: voices
  {{- include "qwen-tts.claimSource" (dict "claim" .Values.voices.claim "name" (printf "%s-voices" (include "qwen-tts.name" .))) | nindent 2 }}
{{- end }}
{{- with .Values.apiKeys.secretName }}
- name: api-keys
  secret: {secretName: {{ . }}}
{{- end }}
{{- end -}}

{{- define "qwen-tts.workerMounts" -}}
{{ include "qwen-tts.scratchMounts" . }}
- {name: models, mountPath: /models{{ if include "qwen-tts.modelsAreThere" . }}, readOnly: true{{ end }}}
{{- if .Values.voices.claim.enabled }}
- {name: voices, mountPath: /voices}
{{- end }}
{{- if .Values.apiKeys.secretName }}
- {name: api-keys, mountPath: /etc/qwen-tts, readOnly: true}
{{- end }}
{{- end -}}
