# Copies and reads a file with the machine's own tools and prints seconds. Arguments: copy|cat|null, file. Needs bash
# for its clock.
what=$1 file=$2
began=${EPOCHREALTIME/[.,]/}
case $what in
  copy) cp "$file" copied && sync copied ;;
  cat) cat "$file" | cat >/dev/null ;;
  null) cat "$file" >/dev/null ;;
esac
took=$((${EPOCHREALTIME/[.,]/} - began))
printf '%d.%06d\n' $((took / 1000000)) $((took % 1000000))
