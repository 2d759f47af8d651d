{{/* What no schema can say. */}}
{{- define "headrace.check" -}}
{{- $scaled := dict -}}
{{- range $name, $pool := .Values.pools -}}{{- if $pool -}}
  {{- if and $pool.autoscale $pool.hpa -}}{{ fail (printf "pools.%s: autoscale or hpa, not both" $name) }}{{- end -}}
  {{- if and $pool.autoscale (has $.Values.autoscaling.mode (list "headrace" "published")) -}}
    {{- $stages := join "+" $pool.stages -}}
    {{- if hasKey $scaled $stages -}}{{ fail (printf "pools.%s: %s is scaled as pool %s already; all workers of the same stages are one pool to the autoscaler" $name $stages (get $scaled $stages)) }}{{- end -}}
    {{- $_ := set $scaled $stages $name -}}
    {{- if and (eq 0 (int $pool.autoscale.min)) (ne $stages "encode") -}}{{ fail (printf "pools.%s.autoscale.min: only encoders may go to zero" $name) }}{{- end -}}
    {{- if gt (int $pool.autoscale.min) (int $pool.autoscale.max) -}}{{ fail (printf "pools.%s.autoscale: min is above max" $name) }}{{- end -}}
  {{- end -}}
  {{- if gt (len (printf "%s-%s" (include "headrace.full" $) $name)) 46 -}}{{ fail (printf "pools.%s: the name is too long" $name) }}{{- end -}}
{{- end -}}{{- end -}}
{{- if and (has .Values.autoscaling.mode (list "headrace" "published")) (not $scaled) -}}{{ fail "autoscaling.mode: no pool has `autoscale`" }}{{- end -}}
{{- if and .Values.nats.leaf.enabled (not .Values.security.enabled) -}}{{ fail "nats.leaf.enabled: needs security.enabled: accounts keep the doors out of the cell" }}{{- end -}}
{{- if has (int .Values.nats.replicas) (list 2 4) -}}{{ fail "nats.replicas: 1, 3 or 5; an even number survives no more than the odd one below it" }}{{- end -}}
{{- end }}

{{/* HEADRACE_AUTOSCALE_POOLS, as services/queue_manager/scaling_options.py reads it. */}}
{{- define "headrace.pools" -}}
{{- range $name, $pool := .Values.pools }}{{ if and $pool $pool.autoscale }}
{{- join "+" $pool.stages }}:{{ $pool.autoscale.min }}-{{ $pool.autoscale.max }}{{ with $pool.autoscale.capacity }}:{{ . }}{{ end }}@{{ include "headrace.full" $ }}-{{ $name }} {{ end }}{{ end -}}
{{- end }}

{{- define "headrace.selfScaling" -}}
{{- if has .Values.autoscaling.mode (list "headrace" "published") }}yes{{ end -}}
{{- end }}
