{{/* Annotations of the head's pod that make a new cluster when they change, because KubeRay compares pod templates. */}}
{{- define "qwen-tts.newClusterFor" -}}
{{- with .Values.upgradeStrategy.newClusterFor -}}
{{- if .app }}
qwen-tts/app: {{ include "qwen-tts.args" $ | fromYaml | toJson | sha256sum | trunc 16 | quote }}
{{- end }}
{{- if .scaling }}
{{- $ignored := list $.Values.head.tolerations }}
{{- range $.Values.workerGroups }}
{{- $ignored = append $ignored (list .name .minReplicas .maxReplicas (.tolerations | default list)) }}
{{- end }}
qwen-tts/scaling: {{ $ignored | toJson | sha256sum | trunc 16 | quote }}
{{- end }}
{{- end -}}
{{- end -}}
