#!/usr/bin/env python3
"""How long `e2dax serve --from DIR` takes until it listens, what it reads for that, and what it holds.

    bench/ready.py E2DAX DIR [ROUNDS]

Prints the median of the times, and of the last round the bytes that the process read (of files and of what it is made of
itself) and its greatest memory. Linux.
"""
import os, socket, statistics, subprocess, sys, tempfile, time

command, source = sys.argv[1], sys.argv[2]
rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
times, busy = [], []
for _ in range(rounds):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 's')
        begin = time.monotonic()
        server = subprocess.Popen([command, 'serve', '--from', source, '--read-only', '--socket', path], stdout=subprocess.PIPE)
        server.stdout.readline()
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        assert client.recv(8) == b'NBDMAGIC'
        times.append(time.monotonic() - begin)
        process = f'/proc/{server.pid}/'
        read = next(line for line in open(process + 'io') if line.startswith('rchar')).split()[1]
        peak = next(line for line in open(process + 'status') if line.startswith('VmHWM')).split()[1]
        client.close()
        # Where other programs run, the time of the processor says more: in clock ticks of utime and stime.
        fields = open(process + 'stat').read().rpartition(')')[2].split()
        busy.append((int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK'))
        server.terminate()
        server.wait()
print(f'{statistics.median(times) * 1000:.0f} ms (of {", ".join(f"{took * 1000:.0f}" for took in sorted(times))}), '
      f'{statistics.mean(busy) * 1000:.0f} ms of a processor, '
      f'{int(read)} bytes read, {int(peak) / 1024:.0f} MiB at most')
