# Runs the same command in the same shell, bare, and prints each time in ms as JSON. Needs bash for its clock.
count=$1 shell=$2
for ((i = 0; i < count; i++)); do
  began=${EPOCHREALTIME/[.,]/}
  "$shell" -c 'echo hi' >/dev/null
  took=$((${EPOCHREALTIME/[.,]/} - began))
  printf '%s%d.%03d' "$([ "$i" = 0 ] && echo '[' || echo ', ')" $((took / 1000)) $((took % 1000))
done
echo ']'
