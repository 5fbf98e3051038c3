#include <string.h>

/* The value in a line "KEY=VALUE": what follows the first '=', without spaces in front. NULL if there is no
 * '='. */
const char *setting_value(const char *line)
{
    const char *sign = strchr(line, '=');
