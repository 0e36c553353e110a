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

{{- define "qwen-tts.container" -}}
image: {{ include "qwen-tts.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "qwen-tts.containerSecurity" . | nindent 2 }}
{{- end -}}

{{- define "qwen-tts.env" -}}
- {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: {{ include "qwen-tts.drainSeconds" . | quote }}}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
{{/* At the end of a stream, a replica waits until Ray knows whether the caller is dead. The default is a second. */ -}}
- {name: RAY_core_worker_rpc_server_reconnect_timeout_base_s, value: "0"}
- {name: RAY_grpc_client_check_connection_status_interval_milliseconds, value: "50"}
- {name: HOME, value: /home/qwen-tts}
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

{{/* The volume source of a claim: the existing claim, the chart's claim, or an emptyDir. Arguments: claim, name. */}}
{{- define "qwen-tts.claimSource" -}}
{{- if .claim.enabled -}}
persistentVolumeClaim: {claimName: {{ .claim.existing | default .name }}}
{{- else -}}
emptyDir: {}
{{- end -}}
{{- end -}}

{{- define "qwen-tts.workerVolumes" -}}
{{ include "qwen-tts.scratchVolumes" . }}
- name: models
  {{- include "qwen-tts.claimSource" (dict "claim" .Values.models.claim "name" (printf "%s-models" (include "qwen-tts.name" .))) | nindent 2 }}
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
