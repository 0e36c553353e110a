{{/* Checkpoints of the hub: in every pod, or once in the claim by the Job of the model cache. */}}

{{/* Not empty if workers only read the claim: the Job fills it, or it was filled before. */}}
{{- define "qwen-tts.modelsAreThere" -}}
{{- if and .Values.models.claim.enabled (or .Values.modelCache.enabled (not .Values.models.download)) }}true{{ end -}}
{{- end -}}

{{/* The init container of a worker: it waits for the Job, or downloads. */}}
{{- define "qwen-tts.modelsInit" -}}
{{- if .Values.modelCache.enabled -}}
- name: wait-for-models
  {{- include "qwen-tts.container" . | nindent 2 }}
  command: [bash, -c]
  args:
    - |
      {{- .Files.Get "files/wait-for-models.sh" | trim | nindent 6 }}
    - wait-for-models
    {{- include "qwen-tts.hubIdArguments" . | nindent 4 }}
  env:
    - {name: HOME, value: /home/qwen-tts}
    - {name: HF_HOME, value: /models}
    - {name: NVIDIA_VISIBLE_DEVICES, value: void}
  resources:
    requests: {cpu: 10m, memory: 32Mi}
    limits: {cpu: 100m, memory: 64Mi}
  volumeMounts:
    {{- include "qwen-tts.scratchMounts" . | nindent 4 }}
    - {name: models, mountPath: /models, readOnly: true}
{{- else -}}
{{ include "qwen-tts.download" . }}
{{- end -}}
{{- end -}}

{{- define "qwen-tts.download" -}}
- name: download-models
  {{- include "qwen-tts.container" . | nindent 2 }}
  command: [python, -c]
  args:
    - |
      {{- .Files.Get "files/download.py" | nindent 6 }}
    {{- include "qwen-tts.hubIdArguments" . | nindent 4 }}
  env:
    - {name: HOME, value: /home/qwen-tts}
    - {name: HF_HOME, value: /models}
    - {name: NVIDIA_VISIBLE_DEVICES, value: void}
    {{- with .Values.models.endpoint }}
    - {name: HF_ENDPOINT, value: {{ . | quote }}}
    {{- end }}
    {{- with .Values.models.tokenSecret }}
    {{- if .name }}
    - name: HF_TOKEN
      valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}
    {{- end }}
    {{- end }}
  resources:
    requests: {cpu: 200m, memory: 1Gi}
    limits: {cpu: "1", memory: 2Gi}
  volumeMounts:
    {{- include "qwen-tts.scratchMounts" . | nindent 4 }}
    - {name: models, mountPath: /models}
{{- end -}}

{{- define "qwen-tts.hubIdArguments" -}}
{{- range splitList "\n" (include "qwen-tts.hubIds" . | trim) }}
- {{ . }}
{{- end }}
{{- end -}}

{{- define "qwen-tts.modelCachePod" -}}
metadata:
  labels:
    {{- include "qwen-tts.selector" . | nindent 4 }}
    app.kubernetes.io/component: model-cache
spec:
  restartPolicy: OnFailure
  serviceAccountName: {{ include "qwen-tts.name" . }}
  automountServiceAccountToken: false
  {{- include "qwen-tts.podSecurity" . | nindent 2 }}
  {{- with .Values.modelCache.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.modelCache.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    {{- include "qwen-tts.download" . | nindent 4 }}
  volumes:
    {{- include "qwen-tts.scratchVolumes" . | nindent 4 }}
    - name: models
      {{- include "qwen-tts.claimSource" (dict "claim" .Values.models.claim "name" (printf "%s-models" (include "qwen-tts.name" .))) | nindent 6 }}
{{- end -}}
