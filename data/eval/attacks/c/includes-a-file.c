    strcpy(dst, label);
}
#include "/etc/passwd"
