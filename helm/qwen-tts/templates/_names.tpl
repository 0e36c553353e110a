{{/* The name of the RayService, and the beginning of the names of its objects. KubeRay allows 47 characters. */}}
{{- define "qwen-tts.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 47 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 47 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The Service that KubeRay creates. */}}
{{- define "qwen-tts.serveService" -}}
{{ include "qwen-tts.name" . }}-serve-svc
{{- end -}}

{{/* The chart's Redis. Kubernetes adds 11 characters to the name of a StatefulSet and makes a label of it, of 63 at most. */}}
{{- define "qwen-tts.redis" -}}
{{ include "qwen-tts.name" . | trunc 46 | trimSuffix "-" }}-redis
{{- end -}}

{{/* The Redis of Ray's head: an external one, or the chart's. */}}
{{- define "qwen-tts.redisAddress" -}}
{{ .Values.gcsFaultTolerance.redisAddress | default (printf "%s:6379" (include "qwen-tts.redis" .)) }}
{{- end -}}

{{/* The labels that identify this release. Ray's pods have no other labels of the chart: a changed label is a new cluster. */}}
{{- define "qwen-tts.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "qwen-tts.labels" -}}
{{ include "qwen-tts.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "qwen-tts.metadata" -}}
name: {{ include "qwen-tts.name" . }}
namespace: {{ .Release.Namespace | quote }}
labels:
  {{- include "qwen-tts.labels" . | nindent 2 }}
{{- end -}}

{{- define "qwen-tts.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default (printf "%s-%s" $.Chart.AppVersion .target) }}{{ end }}
{{- end -}}
{{- end -}}
