{{/* One of the six services as a pod. dict root, name (component), role, module, args, env, settings, image, gpus,
     resources, mounts, volumes, account, token, startS, graceS, preStopS, ports, papers (files), extra (of the spec). */}}
{{- define "headrace.pod" -}}
{{- $root := .root -}}
metadata:
  labels: {{- include "headrace.podLabels" . | nindent 4 }}
  annotations:
    checksum/settings: {{ include (print $root.Template.BasePath "/settings.yaml") $root | sha256sum }}
spec:
  serviceAccountName: {{ .account }}
  automountServiceAccountToken: {{ .token | default false }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .graceS }}
  {{- with include "headrace.priority" . }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $root.Values.images.pullSecrets }}
  imagePullSecrets: {{- range . }}
  - name: {{ . }}
  {{- end }}
  {{- end }}
  securityContext: {{- include "headrace.podSecurity" . | nindent 4 }}
  {{- with include "headrace.spread" (dict "root" $root "name" .name "strict" false) }}
  topologySpreadConstraints: {{- . | nindent 2 }}
  {{- end }}
  {{- with .extra }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  containers:
  - name: {{ .role }}
    image: {{ .image | default $root.Values.images.mesh }}
    imagePullPolicy: {{ $root.Values.images.pullPolicy }}
    command: [python, -m, {{ .module }}]
    args: [--id, $(POD_NAME){{ range .args }}, {{ . | quote }}{{ end }}]
    envFrom:
    - configMapRef: {name: {{ include "headrace.full" $root }}-settings}
    env:
    - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    # Peers are told the pod's address: a pod's name is not resolved.
    - {name: HEADRACE_ADVERTISE_HOST, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    {{- if $root.Values.security.enabled }}
    - {name: HEADRACE_NATS_CREDS_FILE, value: /run/headrace/nats-{{ .user }}.creds}
    {{- end }}
    {{- range $key, $value := .env }}
    - {name: {{ $key }}, value: {{ $value | toString | quote }}}
    {{- end }}
    ports:
    - {name: grpc, containerPort: 50051}
    - {name: metrics, containerPort: 9100}
    {{- with .ports }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "headrace.probes" . | nindent 4 }}
    {{- with .preStopS }}
    lifecycle: {preStop: {sleep: {seconds: {{ . }}}}}
    {{- end }}
    resources: {{- toYaml .resources | nindent 6 }}
    securityContext: {{- include "headrace.containerSecurity" . | nindent 6 }}
    volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: files, mountPath: /etc/headrace, readOnly: true}
    {{- if $root.Values.security.enabled }}
    - {name: papers, mountPath: /run/headrace, readOnly: true}
    {{- end }}
    {{- with .mounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
  - {name: tmp, emptyDir: {medium: Memory, sizeLimit: 64Mi}}
  - {name: files, configMap: {name: {{ include "headrace.full" $root }}-files}}
  {{- if $root.Values.security.enabled }}
  {{- $files := concat (list "ca.crt" "member.crt" "member.key" (printf "nats-%s.creds" .user) "redis.password" "keys.toml") }}
  {{- include "headrace.papersVolume" (dict "root" $root "files" $files) | nindent 2 }}
  {{- end }}
  {{- with .volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The service's own word (grpc.health.v1), by the image's health check where TLS asks for a certificate. Alive is who
     answers on its event loop; the bus being away is no reason to start it again. */}}
{{- define "headrace.probes" -}}
{{- $ask := dict "exec" (dict "command" (list "python" "/opt/health.py")) -}}
{{- $serves := ternary $ask (dict "grpc" (dict "port" 50051)) .root.Values.security.enabled -}}
{{- $alive := ternary $ask (dict "httpGet" (dict "path" "/health" "port" "metrics")) .root.Values.security.enabled -}}
startupProbe:
  {{- toYaml $serves | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ div (.startS | default 120) 5 }}
readinessProbe:
  {{- if and (eq .role "gateway") (or (not .root.Values.security.enabled) (eq .root.Values.security.tlsClients "inner")) }}
  httpGet: {path: /health, port: http, scheme: {{ ternary "HTTPS" "HTTP" .root.Values.security.enabled }}}
  {{- else }}
  {{- toYaml $serves | nindent 2 }}
  {{- end }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
livenessProbe:
  {{- toYaml $alive | nindent 2 }}
  periodSeconds: 15
  timeoutSeconds: 10
  failureThreshold: 4
{{- end }}

{{/* A Service without an address of its own: names of pods, and what the scraper finds. dict root, name, suffix, ports. */}}
{{- define "headrace.headless" -}}
{{- $numbers := dict "grpc" 50051 "metrics" 9100 -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "headrace.full" .root }}-{{ .name }}{{ .suffix }}
  labels: {{- include "headrace.labels" . | nindent 4 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {{- include "headrace.selector" . | nindent 4 }}
  ports:
  {{- range .ports }}
  - {name: {{ . }}, port: {{ get $numbers . }}, targetPort: {{ . }}}
  {{- end }}
{{- end }}
