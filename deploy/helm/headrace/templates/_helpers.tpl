{{/* Names, labels, and what all pods have in common. */}}
{{- define "headrace.full" -}}
{{- if contains "headrace" .Release.Name -}}{{ .Release.Name | trunc 30 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-headrace" .Release.Name | trunc 30 | trimSuffix "-" }}{{- end -}}
{{- end }}

{{/* dict root, name: of what is selected; it never changes. */}}
{{- define "headrace.selector" -}}
app.kubernetes.io/name: headrace
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "headrace.labels" -}}
{{ include "headrace.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: headrace
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "headrace.podLabels" -}}
{{ include "headrace.labels" . }}
headrace/role: {{ .role }}
headrace/cell: {{ .root.Values.cell }}
{{- end }}

{{- define "headrace.role" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
headrace/role: {{ .role }}
{{- end }}

{{- define "headrace.natsUrl" -}}
{{- if not .Values.nats.enabled -}}{{ required "nats.url: name the cluster, or nats.enabled=true" .Values.nats.url }}
{{- else -}}
{{- $full := include "headrace.full" . -}}{{- $scheme := ternary "tls" "nats" .Values.security.enabled -}}
{{- range $at := until (int .Values.nats.replicas) }}{{ if $at }},{{ end }}{{ $scheme }}://{{ $full }}-nats-{{ $at }}.{{ $full }}-nats:4222{{ end -}}
{{- end -}}
{{- end }}

{{- define "headrace.redisUrl" -}}
{{- $full := include "headrace.full" . -}}
{{- if eq .Values.redis.mode "external" -}}{{ required "redis.url: name it, or another redis.mode" .Values.redis.url }}
{{- else if eq .Values.redis.mode "single" -}}{{ ternary "rediss" "redis" .Values.security.enabled }}://{{ $full }}-redis-0.{{ $full }}-redis:6379/0
{{- else -}}{{ ternary "rediss+sentinel" "redis+sentinel" .Values.security.enabled }}://
{{- range $at := until 3 }}{{ if $at }},{{ end }}{{ $full }}-redis-{{ $at }}.{{ $full }}-redis:26379{{ end }}/{{ $full }}
{{- end -}}
{{- end }}

{{- define "headrace.papers" -}}
{{- if .Values.security.papers }}{{ include "headrace.full" . }}-papers{{ else }}{{ required "security.existingSecret: name a Secret with what `headrace certs` makes, or security.enabled=false" .Values.security.existingSecret }}{{ end }}
{{- end }}

{{/* A pod as the restricted profile wants it. */}}
{{- define "headrace.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "headrace.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* dict root, name, strict: pods of one component on different nodes. */}}
{{- define "headrace.spread" -}}
{{- $strict := and .strict .root.Values.spread.strict -}}
{{- range .root.Values.spread.topologyKeys }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: {{ ternary "DoNotSchedule" "ScheduleAnyway" (and $strict (eq . "kubernetes.io/hostname")) }}
  labelSelector:
    matchLabels: {{- include "headrace.selector" $ | nindent 6 }}
{{- end }}
{{- end }}

{{- define "headrace.priority" -}}
{{- $class := ternary .root.Values.priorityClasses.workers .root.Values.priorityClasses.control (eq .role "worker") -}}
{{- if .root.Values.priorityClasses.create -}}
{{- default (printf "%s-%s" (include "headrace.full" .root) (ternary "workers" "control" (eq .role "worker"))) $class -}}
{{- else -}}{{ $class }}{{- end -}}
{{- end }}

{{/* NATS users and files of a role: dict root, user. Which files of the papers a pod sees. */}}
{{- define "headrace.papersVolume" -}}
- name: papers
  secret:
    secretName: {{ include "headrace.papers" .root }}
    defaultMode: 0440
    items:
    {{- range .files }}
    - {key: {{ . }}, path: {{ . }}}
    {{- end }}
{{- end }}

{{- define "headrace.volumeClaim" -}}
accessModes: [{{ .mode }}]
{{- with .class }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .size }}}}
{{- end }}
