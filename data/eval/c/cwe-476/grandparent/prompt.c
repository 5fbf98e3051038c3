#include <stddef.h>

struct folder {
    const char *name;
    const struct folder *parent;        /* NULL for the top */
};

/* Name of the folder two levels above, or "/" if there is none. */
const char *grandparent_name(const struct folder *folder)
{
