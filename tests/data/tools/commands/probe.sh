# One behaviour per action, for tests/tools/test_command.c.
read -r line
action=${line#*\"action\":\"}
action=${action%%\"*}
case $action in
echo) printf '%s\n' "$line" ;;
data) cat /tool/data/answer.txt ;;
fail) echo "half of the output"; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo "reason $i" >&2; done; exit 3 ;;
silent) exit 4 ;;
json) printf '{ "b" : [1, 2.50],\n "a" : "x" }\n' ;;
signal) kill -SEGV $$ ;;
sleep) echo begun; sleep 100 ;;
write) echo kept > /work/kept.txt && cat /work/kept.txt ;;
writetool) echo no > /tool/no.txt ;;
where) pwd; ls / ;;
flood) yes 0123456789 | head -c 3000000 ;;
bytes) printf 'a\0b\377c' ;;
stderr) echo out; echo err >&2 ;;
net) exec 3<>/dev/tcp/127.0.0.1/1 ;;
environment) env | sort ;;
empty) : ;;
*) echo "unknown action $action" >&2; exit 9 ;;
esac
