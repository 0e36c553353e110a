{{/* The node selector of a group. With a GPU, it includes the labels of the nodes that have the preset's GPU. Arguments: group, gpuNodes. */}}
{{- define "qwen-tts.nodeSelector" -}}
{{- $selector := deepCopy (.group.nodeSelector | default dict) -}}
{{- if and .gpuNodes.cluster (include "qwen-tts.gpus" .group) -}}
{{- $selector = merge $selector (index .gpuNodes.labels .gpuNodes.cluster) -}}
{{- end -}}
{{ toYaml $selector }}
{{- end -}}
