{{/* Parts of qwen-tts.check (_app.tpl): worker groups, numbers of replicas, and the pods for them. */}}
{{- define "qwen-tts.checkGroups" -}}
{{- $names := list -}}
{{- $pods := 0 -}}
{{- range .Values.workerGroups -}}
{{- if has .name (list "head" "redis" "test" "model-cache") -}}
{{- fail (printf "workerGroups: %s is the name of other pods of the chart; choose another name" .name) -}}
{{- end -}}
{{- if has .name $names -}}
{{- fail (printf "workerGroups: two groups have the name %s" .name) -}}
{{- end -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "workerGroups: of %s minReplicas %d is above maxReplicas %d" .name (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- if and .mps (not (include "qwen-tts.gpus" .)) -}}
{{- fail (printf "workerGroups: %s has mps and no GPU in resources.limits (nvidia.com/gpu)" .name) -}}
{{- end -}}
{{- if and .resourceClaims (not (include "qwen-tts.gpus" .)) -}}
{{- fail (printf "workerGroups: %s has resourceClaims, whose GPUs Ray cannot count; set rayResources.GPU" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- $pods = add $pods ($.Values.autoscaler.enabled | ternary .maxReplicas .minReplicas | int) -}}
{{- end -}}
{{- with .Values.voices.claim -}}
{{- if and .enabled (not .existing) (gt $pods 1) (not (has "ReadWriteMany" .accessModes)) -}}
{{- fail "voices.claim is for several worker pods, so it needs voices.claim.accessModes: [ReadWriteMany]" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
The rules of deployments/settings.py about autoscaling. These settings are live, so they are not in `args`, where the
application would check them. Arguments: where, section, autoscaling (with its defaults), mayStop.
*/}}
{{- define "qwen-tts.checkScaling" -}}
{{- $least := int .autoscaling.min_replicas -}}
{{- $most := int .autoscaling.max_replicas -}}
{{- $delay := float64 .autoscaling.downscale_delay_s -}}
{{- if ne (int (.section.num_replicas | default 1)) 1 -}}
{{- fail (printf "%s: num_replicas is not allowed together with autoscaling; set autoscaling.min_replicas" .where) -}}
{{- end -}}
{{- if gt $least $most -}}
{{- fail (printf "%s: min_replicas %d is above max_replicas %d" .where $least $most) -}}
{{- end -}}
{{- if not (or $least .mayStop) -}}
{{- fail (printf "%s: min_replicas is 0, which needs start_wait_s of a model; set it to 1 or more" .where) -}}
{{- end -}}
{{- if and (not $least) (lt $delay 10.0) -}}
{{- fail (printf "%s: downscale_delay_s is %v; with min_replicas 0 it must be 10 or more" .where $delay) -}}
{{- end -}}
{{- end -}}
