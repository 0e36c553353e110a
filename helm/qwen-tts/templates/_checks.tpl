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

{{/*
Without the autoscaler, the pods of minReplicas must have a place for every replica that the service starts with. This
counts places by custom resources that one group offers.
*/}}
{{- define "qwen-tts.checkPlaces" -}}
{{- $faults := list -}}
{{- range $resource, $shares := include "qwen-tts.shares" . | fromYaml -}}
{{- $groups := list -}}
{{- range $.Values.workerGroups -}}
{{- if hasKey (.rayResources | default dict) $resource }}{{ $groups = append $groups . }}{{ end -}}
{{- end -}}
{{- if eq (len $groups) 1 -}}
{{- $group := first $groups -}}
{{- range $share, $count := $shares -}}
{{- $perPod := divf (index $group.rayResources $resource) $share | floor | int -}}
{{- $places := mul $perPod (int $group.minReplicas) | int -}}
{{- if and $perPod (lt $places (int $count)) -}}
{{- $needed := div (sub (add $count $perPod) 1) $perPod | int -}}
{{- $faults = append $faults (printf "group %s has room for %d of %d replicas (%s: %s), set its minReplicas to %d" $group.name $places (int $count) $resource $share $needed) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $faults -}}
{{- fail (printf "autoscaler.enabled is false: %s" (join "; " .)) -}}
{{- end -}}
{{- end -}}

{{/* The number of replicas at the start, by custom resource and by the share of it that one replica requests. */}}
{{- define "qwen-tts.shares" -}}
{{- $all := dict -}}
{{- range (include "qwen-tts.deploymentList" . | fromYaml).deployments -}}
{{- $section := index .sections .replicas -}}
{{- $count := $section.num_replicas | default 1 -}}
{{- with $section.autoscaling }}{{ $count = dig "min_replicas" 1 . }}{{ end -}}
{{- range $resource, $share := $section.resources -}}
{{- if $share -}}
{{- $shares := get $all $resource | default dict -}}
{{- $_ := set $shares (toString $share) (add (get $shares (toString $share) | default 0) $count) -}}
{{- $_ := set $all $resource $shares -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ toYaml $all }}
{{- end -}}
