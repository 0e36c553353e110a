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
