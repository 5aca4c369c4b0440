/* SPDX-License-Identifier: BSD-2-Clause */
/* The prompt on the console. */
#include "guest.h"

/* A line, with backspace and ^U; ended without its newline. */
static void read_line(char *line, size_t size)
{
    size_t len = 0;

    for (;;) {
        char c = console_read();

        if (c == '\r' || c == '\n') {
            console_print("\n");
            line[len] = 0;
            return;
        }
        if ((c == 8 || c == 127) && len > 0) {
            len--;
            console_print("\b \b");
        } else if (c == 21) {
            for (; len > 0; len--)
                console_print("\b \b");
        } else if (c >= ' ' && c < 127 && len + 1 < size) {
            line[len++] = c;
            console_print("%c", c);
        }
    }
}

enum status shell_run(void)
{
    static bool inside;
    enum status status = STATUS_OK;
    char line[256];

    if (inside) /* `shell` at the prompt */
        return STATUS_OK;
    inside = true;
    console_print("type help for the commands, exit to power off\n");
    do {
        console_print("ebb> ");
        read_line(line, sizeof line);
    } while (!script_line(line, &status));
    inside = false;
    return status;
}
